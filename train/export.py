"""Write a native Llama model as a LLaDA checkpoint folder, and read its weights back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from transformers import LlamaForCausalLM

from models.llada_layout import llada_config, to_llada, to_llama

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def export(model: LlamaForCausalLM, folder: Path, *, tokenizer: Path, mask_id: int, eos_id: int) -> None:
    """Save weights (bfloat16), configuration and tokenizer files in the published LLaDA layout.

    Every file is written aside and renamed, the weights last, so a killed run leaves a folder that loads.

    Args:
        model: the native model.
        folder: where to write; made if missing.
        tokenizer: folder with the tokenizer files.
        mask_id: id of the mask token.
        eos_id: id that ends and fills a response.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).is_file() and tokenizer.resolve() != folder.resolve():
            shutil.copyfile(tokenizer / name, folder / f"{name}.part")
            (folder / f"{name}.part").replace(folder / name)
    config = llada_config(model.config, mask_token_id=mask_id, eos_token_id=eos_id)
    generation = {
        "_from_model_config": True,
        "eos_token_id": eos_id,
        "transformers_version": config["transformers_version"],
    }
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", generation)
    weights = {key: value.detach().to("cpu", torch.bfloat16) for key, value in to_llada(model.state_dict()).items()}
    aside = folder / "model.safetensors.part"
    aside.write_bytes(save({key: value.contiguous() for key, value in weights.items()}, metadata={"format": "pt"}))
    aside.replace(folder / "model.safetensors")


def load_weights(model: LlamaForCausalLM, folder: Path) -> None:
    """Fill a native model from a folder that `export` wrote.

    Args:
        model: a model of the same shape.
        folder: the checkpoint folder.

    Raises:
        ValueError: if the folder has no weights.
        RuntimeError: if keys or shapes differ.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        raise ValueError(f"init must be a folder with model.safetensors, got {str(folder)!r}")
    model.load_state_dict(to_llama(load_file(path)))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    aside = path.with_name(path.name + ".part")
    aside.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    aside.replace(path)
