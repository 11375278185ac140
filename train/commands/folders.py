"""The folders that a command line names, model, head and adapter: judged before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path

from models.checkpoints.hub import head_folder
from models.checkpoints.json_files import read_object
from models.complaints import shown
from train.commands.command_line import shipped

MODEL, HEAD = "checkpoints/reason-7m", "checkpoints/reason-7m-head"


def or_shipped(folder: str | None, name: str) -> str:
    """The folder or hub id that was named; where none was, that of this name that ships, wherever the call comes from."""
    return str(shipped(name)) if folder is None else folder


def check_adapter(adapter: str | None) -> None:
    """Refuse a folder without an adapter.

    Raises:
        ValueError: in one sentence.
    """
    if adapter is not None and not (Path(adapter) / "adapter_config.json").is_file():
        raise ValueError(f"adapter must be a folder with adapter_config.json, got {adapter}")


def check_head_folder(folder: str | Path) -> None:
    """Refuse a folder that holds no scoring head, in one sentence."""
    named_head(folder)


def named_head(named: str | Path) -> str:
    """The folder of the scoring head that a user names, fetched where that is `owner/name` on the hub.

    Raises:
        ValueError: if it holds no head, in one sentence.
    """
    folder = head_folder(named)
    if not (folder / "head.safetensors").is_file():
        raise ValueError(f"head must be a folder with head.safetensors, got {named}")
    return str(folder)


def find_head(model: str | None, head: str | None = None, adapter: str | None = None) -> str | None:
    """The folder of the scoring head of a model: the one named, else the one that ships for these very weights.

    Args:
        model: checkpoint folder or hub id; None is the model that ships.
        head: folder, or `owner/name` on the hub, named on the command line.
        adapter: of a model whose weights it changes: none ships for those.

    Returns:
        None where there is no such head.

    Raises:
        ValueError: if the folder named holds no head.
    """
    if head is not None:
        return named_head(head)
    if adapter is not None:
        return None
    if model is None:
        return str(shipped(HEAD)) if shipped(HEAD).is_dir() else None
    return _by_fingerprint(Path(model))


def head_of(model: str | None, head: str | None) -> str:
    """The folder of the head that a command cannot do without; arguments as in `find_head`.

    Raises:
        ValueError: where none is named and none ships for the model.
    """
    found = find_head(model, head)
    if found is None:
        raise ValueError(f"head must be a folder with head.safetensors, for none ships for {model}, got none")
    return found


def _by_fingerprint(model: Path) -> str | None:
    """The shipped head that was fitted on the weights in a folder; weights of another shape than a shipped base's are not read."""
    for folder in sorted(shipped("checkpoints").glob("*-head")):
        fitted = read_object(folder / "metrics.json", finite=False).get("fitted_on", {})
        base = folder.with_name(fitted.get("name", "none"))
        if not base.is_dir() or not model.is_dir() or _shape(base) != _shape(model):
            continue
        from models.checkpoints.loading import stored_fingerprint

        if stored_fingerprint(model) == fitted["fingerprint"]:
            return str(folder)
    return None


def _shape(folder: Path) -> dict[str, object]:
    config = read_object(folder / "config.json")
    return {name: value for name, value in config.items() if isinstance(value, int)}


def check_model(model: str, prompt: str) -> None:
    """Refuse a folder without a checkpoint, and a prompt that spells its mask token; a hub id is left to the loader.

    Raises:
        ValueError: in one sentence.
    """
    folder = Path(model)
    if not folder.is_dir() and folder.parent.is_dir():
        raise ValueError(f"model must be a checkpoint folder or a hub id, got {shown(model)}")
    if not folder.is_dir():
        return
    missing = [name for name in ("config.json", "tokenizer_config.json") if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"model must be a folder with {' and '.join(missing)}, got {shown(model)} without")
    mask_id = read_object(folder / "config.json").get("mask_token_id")
    if not (folder / "tokenizer.json").is_file():
        return
    added = read_object(folder / "tokenizer.json").get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        raise ValueError(f"added_tokens in {folder / 'tokenizer.json'} must be a list of objects, got another thing")
    for token in added:
        content = token.get("content")
        if token.get("id") == mask_id and isinstance(content, str) and content and content in prompt:
            raise ValueError(f"prompt must not hold the mask token, got {shown(content)} in it")
