"""The folders that a command line names, model, head and adapter: judged before anything heavy is imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MODEL, HEAD = "checkpoints/reason-7m", "checkpoints/reason-7m-head"


def check_adapter(adapter: str | None) -> None:
    """Refuse a folder without an adapter.

    Raises:
        ValueError: in one sentence.
    """
    if adapter is not None and not (Path(adapter) / "adapter_config.json").is_file():
        raise ValueError(f"adapter must be a folder with adapter_config.json, got {adapter}")


def check_head_folder(folder: str | Path) -> None:
    """Refuse a folder that holds no scoring head, in one sentence."""
    if not (Path(folder) / "head.safetensors").is_file():
        raise ValueError(f"head must be a folder with head.safetensors, got {folder}")


def check_model(model: str, prompt: str) -> None:
    """Refuse a folder without a checkpoint, and a prompt that spells its mask token; a hub id is left to the loader.

    Raises:
        ValueError: in one sentence.
    """
    folder = Path(model)
    if not folder.is_dir() and folder.parent.is_dir():
        raise ValueError(f"model must be a checkpoint folder or a hub id, got {model!r}")
    if not folder.is_dir():
        return
    missing = [name for name in ("config.json", "tokenizer_config.json") if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"model must be a folder with {' and '.join(missing)}, got {model!r} without")
    mask_id = read_object(folder / "config.json").get("mask_token_id")
    if not (folder / "tokenizer.json").is_file():
        return
    added = read_object(folder / "tokenizer.json").get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        raise ValueError(f"added_tokens in {folder / 'tokenizer.json'} must be a list of objects, got another thing")
    for token in added:
        content = token.get("content")
        if token.get("id") == mask_id and isinstance(content, str) and content and content in prompt:
            raise ValueError(f"prompt must not hold the mask token, got {content!r} in it")


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ValueError: naming the file, where it holds anything else.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} must be readable JSON, got {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{file} must hold a JSON object, got {type(found).__name__}")
    return found
