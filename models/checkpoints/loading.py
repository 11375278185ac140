"""From a checkpoint folder, a hub id or a loaded model to a Denoiser: native layers, safetensors, no remote code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.checkpoints import files as checkpoint
from models.checkpoints.families import DREAM, LLADA, CheckpointError, Family, family_of, native_config
from models.checkpoints.tokenizer import load_tokenizer
from models.masked_lm import MaskedLM


def load(
    path_or_hub_id: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    adapter: str | Path | None = None,
    head: str | Path | None = None,
    engine: str = "auto",
) -> MaskedLM:
    """Load a LLaDA or Dream checkpoint onto native layers, with frozen weights.

    Args:
        path_or_hub_id: a folder with config.json and safetensors, or `owner/name` on the hub.
        dtype: of the weights; by default float32 on the CPU and the checkpoint's own elsewhere.
        device: where the weights go; by default the GPU if there is one.
        adapter: folder of a PEFT LoRA adapter, merged into the weights.
        head: folder of a scoring head.
        engine: what runs decodes: `graphs` on static shapes, captured on CUDA; `plain` layer by layer; `auto` graphs on CUDA and
            plain elsewhere.

    Returns:
        The denoiser, in evaluation mode.

    Raises:
        CheckpointError: if the checkpoint is damaged or outside the two families.
    """
    folder = checkpoint.find_folder(path_or_hub_id)
    config = checkpoint.read_json(folder / "config.json")
    family = family_of(config)
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    wanted = as_dtype(dtype) or (torch.float32 if target.type == "cpu" else None)
    model = empty_model(family, config)
    fingerprint = _fill_from_files(model, family, folder, device=target, dtype=wanted)
    denoiser = MaskedLM(
        model, shifted=family.shifted, fingerprint=fingerprint, **special_ids(family, config, load_tokenizer(folder))
    )
    if adapter is not None:
        from models.checkpoints.adapter import merge_adapter

        merge_adapter(denoiser, family, Path(adapter))
    if head is not None:
        from models.heads.scoring_head import load_head

        denoiser.put_on(load_head(Path(head), denoiser))
    return denoiser.eval().use_engine(engine)


def wrap(
    model: Any,
    tokenizer: Any = None,
    *,
    mask_id: int | None = None,
    eos_id: int | None = None,
    shifted: bool | None = None,
) -> MaskedLM:
    """A model that is loaded already as a Denoiser on the very same weights; mode and gradients stay as they are.

    A native `LlamaForCausalLM` counts as LLaDA and a `Qwen2ForCausalLM` as Dream. Of an object of the authors' own classes
    (`LLaDAModelLM`, `DreamModel`) the weights are put on native layers without a copy and its code does not run.

    Args:
        model: the loaded model, on one device.
        tokenizer: its tokenizer, or None.
        mask_id, eos_id: special ids, where neither config nor tokenizer names them.
        shifted: whether the hidden state at i - 1 predicts position i; by default as in the family.

    Raises:
        CheckpointError: if the model is outside the two families.
    """
    config = model.config.to_dict()
    named = {"mask_token_id": mask_id, "eos_token_id": eos_id}
    config |= {key: value for key, value in named.items() if value is not None}
    family = _NATIVE.get(type(model).__name__)
    if hasattr(model, "peft_config"):
        raise CheckpointError("model must be merged first (merge_and_unload), got a model with a PEFT adapter on")
    if family is None:
        family = family_of(config)
        model = _fill_from_model(empty_model(family, config), family, model.state_dict())
    elif config.get("mask_token_id") is None and getattr(tokenizer, "mask_token_id", None) is None:
        raise CheckpointError("mask_id must be given where neither config nor tokenizer names a mask token, got None")
    devices = {str(parameter.device) for parameter in model.parameters()}
    if len(devices) > 1:
        raise CheckpointError(f"model must be on one device, got {', '.join(sorted(devices))}")
    shift = family.shifted if shifted is None else shifted
    return MaskedLM(model, shifted=shift, **special_ids(family, config, tokenizer))


_NATIVE = {"LlamaForCausalLM": LLADA, "Qwen2ForCausalLM": DREAM}


def empty_model(family: Family, config: Mapping[str, Any]) -> Any:
    """The native model of a config.json with every tensor on the meta device, bidirectional."""
    from transformers import LlamaForCausalLM, Qwen2ForCausalLM

    native: type[Any] = Qwen2ForCausalLM if family.shifted else LlamaForCausalLM
    with torch.device("meta"):
        return native(native_config(family, config))


def _fill_from_files(
    model: Any, family: Family, folder: Path, *, device: torch.device, dtype: torch.dtype | None
) -> str:
    """Stream the stored tensors onto an empty model and return their fingerprint."""
    files = checkpoint.weight_files(folder)
    shapes = checkpoint.stored_shapes(files)
    native = native_names(family, shapes)
    tied = bool(model.config.tie_word_embeddings)
    checkpoint.check_names(model, {native[name]: shape for name, shape in shapes.items()}, tied=tied)
    digests: dict[str, bytes] = {}
    for name, tensor in checkpoint.stream(files):
        digests[native[name]] = checkpoint.digest(native[name], tensor)
        checkpoint.assign(model, native[name], tensor.to(device, dtype or tensor.dtype, copy=True))
    finish(model, tied=tied)
    return checkpoint.combine(digests)


def _fill_from_model(model: Any, family: Family, state: Mapping[str, Tensor]) -> Any:
    """Put the tensors of a state dict on an empty model, shared."""
    native = native_names(family, state)
    tied = bool(model.config.tie_word_embeddings)
    checkpoint.check_names(model, {native[name]: tuple(t.shape) for name, t in state.items()}, tied=tied)
    for name, tensor in state.items():
        checkpoint.assign(model, native[name], tensor)
    finish(model, tied=tied)
    return model.eval()


def native_names(family: Family, stored: Mapping[str, Any]) -> dict[str, str]:
    """Stored name -> native name, for every stored tensor."""
    try:
        return {old: new for new, old in family.native_names({name: name for name in stored}).items()}
    except ValueError as error:
        raise CheckpointError(f"the weights must have the names of a {family.name} checkpoint: {error}") from error


def finish(model: Any, *, tied: bool) -> None:
    """Tie the output embedding where the config says so, and rebuild the rotary tables, which no checkpoint stores."""
    embedding: Tensor = model.model.embed_tokens.weight
    if tied:
        model.lm_head.weight = model.model.embed_tokens.weight
    model.model.rotary_emb = type(model.model.rotary_emb)(config=model.config).to(embedding.device)
    left = [name for name, t in [*model.named_parameters(), *model.named_buffers()] if t.is_meta]
    if left:
        raise CheckpointError(f"every tensor of the model must be loaded, got none for {left[0]}")


def as_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """A floating dtype by object or name."""
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if dtype is not None and not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise ValueError(f"dtype must be a floating dtype such as bfloat16, got {dtype!r}")
    return found


def special_ids(family: Family, config: Mapping[str, Any], tokenizer: Any) -> dict[str, Any]:
    """Mask, EOS and end-of-turn ids: by the config, then the tokenizer, then as published.

    Raises:
        CheckpointError: if config and tokenizer name different mask tokens, or the id lies outside the vocabulary.
    """
    size = config.get("embedding_size") or config["vocab_size"]
    declared = getattr(tokenizer, "mask_token_id", None)
    mask_id = config.get("mask_token_id")
    if None not in (declared, mask_id) and declared != mask_id:
        raise CheckpointError(f"mask_token_id of config.json must be the tokenizer's {declared}, got {mask_id}")
    mask_id = next(i for i in (mask_id, declared, family.mask_id) if i is not None)
    if not 0 <= mask_id < size:
        raise CheckpointError(f"the mask id must lie in the vocabulary of {size}, got {mask_id}")
    eos_id = config.get("eos_token_id")
    eos_id = getattr(tokenizer, "eos_token_id", None) if eos_id is None else eos_id
    eos_id = eos_id[0] if isinstance(eos_id, list) else eos_id
    known = {} if tokenizer is None else tokenizer.get_vocab()
    published = family.end_of_turn_id if tokenizer is None and family.end_of_turn_id < size else None
    turn = known.get(family.end_of_turn, published)
    return {"mask_id": mask_id, "eos_id": eos_id, "end_of_turn_id": turn, "tokenizer": tokenizer}
