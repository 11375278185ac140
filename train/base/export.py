"""Write a native Llama model as a LLaDA checkpoint folder, and read its weights back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save
from transformers import LlamaForCausalLM

from models.checkpoints.files import INDEX, stream, weight_files
from models.checkpoints.llada_layout import llada_config, to_llada, to_llama

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def export(
    model: LlamaForCausalLM,
    folder: Path,
    *,
    tokenizer: Path,
    mask_id: int,
    eos_id: int,
    max_shard_size: int | None = None,
) -> None:
    """Save weights (bfloat16), configuration and tokenizer files in the published LLaDA layout.

    Every file is written aside and renamed, the weights last, so a killed run leaves a folder that loads.

    Args:
        model: the native model.
        folder: where to write; made if missing.
        tokenizer: folder with the tokenizer files.
        mask_id: id of the mask token.
        eos_id: id that ends and fills a response.
        max_shard_size: the most bytes of tensors in a file; by default all are in one.
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
    weights = {key: value.contiguous() for key, value in weights.items()}
    split = split_torch_state_dict_into_shards(weights, max_shard_size=max_shard_size or 2**62)
    for name, keys in split.filename_to_tensors.items():
        aside = folder / f"{name}.part"
        aside.write_bytes(save({key: weights[key] for key in keys}, metadata={"format": "pt"}))
        aside.replace(folder / name)
    if split.is_sharded:
        _write_json(folder / INDEX, {"metadata": split.metadata, "weight_map": split.tensor_to_filename})
    else:
        (folder / INDEX).unlink(missing_ok=True)
    for file in set(folder.glob("model*.safetensors")) - {folder / name for name in split.filename_to_tensors}:
        file.unlink()


def load_weights(model: LlamaForCausalLM, folder: Path) -> None:
    """Fill a native model from a folder that `export` wrote.

    Args:
        model: a model of the same shape.
        folder: the checkpoint folder.

    Raises:
        CheckpointError: if the folder has no weights.
        RuntimeError: if keys or shapes differ.
    """
    model.load_state_dict(to_llama(dict(stream(weight_files(folder)))))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    aside = path.with_name(path.name + ".part")
    aside.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    aside.replace(path)
