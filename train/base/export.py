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
from models.checkpoints.manifest import TOKENIZER_FILES, check_files, saving
from models.checkpoints.sums import byte_sum, check_finite, check_sums, spelled


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

    The folder then holds all of it with its checksums or, where the run is killed before, what it held.

    Args:
        model: the native model.
        folder: where to write; made if missing.
        tokenizer: folder with the tokenizer files.
        mask_id: id of the mask token.
        eos_id: id that ends and fills a response.
        max_shard_size: the most bytes of tensors in a file; by default all are in one.

    Raises:
        CheckpointError: if a weight is NaN or infinite; nothing is then written.
    """
    config = llada_config(model.config, mask_token_id=mask_id, eos_token_id=eos_id)
    generation = {
        "_from_model_config": True,
        "eos_token_id": eos_id,
        "transformers_version": config["transformers_version"],
    }
    weights = {key: value.detach().to("cpu", torch.bfloat16) for key, value in to_llada(model.state_dict()).items()}
    weights = {key: value.contiguous() for key, value in weights.items()}
    check_finite(weights, f"the model to export to {folder}")
    split = split_torch_state_dict_into_shards(weights, max_shard_size=max_shard_size or 2**62)
    shards = split.filename_to_tensors
    sums = spelled({name: byte_sum(tensor) for name, tensor in weights.items()})
    with saving(folder, "base", {"tensors": sums, "shards": sorted(shards)}) as aside:
        for name in TOKENIZER_FILES:
            if (tokenizer / name).is_file():
                shutil.copyfile(tokenizer / name, aside / name)
        _write_json(aside / "config.json", config)
        _write_json(aside / "generation_config.json", generation)
        for name, keys in shards.items():
            (aside / name).write_bytes(save({key: weights[key] for key in keys}, metadata={"format": "pt"}))
        if split.is_sharded:
            _write_json(aside / INDEX, {"metadata": split.metadata, "weight_map": split.tensor_to_filename})


def load_weights(model: LlamaForCausalLM, folder: Path) -> None:
    """Fill a native model from a folder that `export` wrote.

    Args:
        model: a model of the same shape.
        folder: the checkpoint folder.

    Raises:
        CheckpointError: if the folder has no weights.
        RuntimeError: if keys or shapes differ.
    """
    sealed = check_files(folder).get("tensors")
    stored = dict(stream(weight_files(folder)))
    check_finite(stored, folder)
    if sealed is not None:
        check_sums(spelled({name: byte_sum(tensor) for name, tensor in stored.items()}), sealed, folder)
    model.load_state_dict(to_llama(stored))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
