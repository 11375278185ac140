"""From a checkpoint folder, a hub id or a loaded model to a Denoiser: native layers, safetensors, no remote code."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.checkpoints import files as checkpoint
from models.checkpoints.families import DREAM, LLADA, CheckpointError, Family, family_of, native_config
from models.checkpoints.hub import head_folder
from models.checkpoints.manifest import check_files, read_manifest, settle
from models.checkpoints.special_ids import special_ids
from models.checkpoints.sums import LARGEST, FiniteCheck, byte_sum, check_sums, fingerprint_of, spelled
from models.checkpoints.tokenizer import load_tokenizer
from models.devices import find_device, find_dtype
from models.masked_lm import MaskedLM


def load(
    path_or_hub_id: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    adapter: str | Path | None = None,
    head: str | Path | None = None,
    engine: str = "auto",
    verify: bool | None = None,
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
        verify: take sums over every stored byte, to bind a head by. By default on a GPU alone, where they are taken on the
            device; on a CPU they cost a core 1 s for every 4.5 GB. With `checksums.json` in the folder it is compared in any case.

    Returns:
        The denoiser, in evaluation mode.

    Raises:
        CheckpointError: if the checkpoint is damaged or outside the two families.
    """
    head = None if head is None else head_folder(head)
    folder = checkpoint.find_folder(path_or_hub_id)
    settle(folder)
    sealed = read_manifest(folder).get("tensors")
    config = checkpoint.read_json(folder / "config.json")
    family = family_of(config)
    native_config(family, config)  # judged before the weights are looked at
    target = find_device(device)
    wanted = find_dtype(dtype, target)
    model, stored = _from_files(
        family,
        config,
        folder,
        target,
        dtype=wanted,
        sealed=sealed,
        verify=target.type != "cpu" if verify is None else verify,
    )
    check_files(folder)  # after what says more of a file that is wrong
    generation = folder / "generation_config.json"
    named = checkpoint.read_json(generation) if generation.exists() else {}
    special = special_ids(family, config, load_tokenizer(folder), named)
    denoiser = MaskedLM(model, shifted=family.shifted, fingerprint=stored.sampled, **special)
    denoiser.stored_bytes = stored.full
    if adapter is not None:
        from models.checkpoints.adapter import merge_adapter

        merge_adapter(denoiser, family, Path(adapter))
    if head is not None:
        from models.heads.scoring_head import load_head

        denoiser.put_on(load_head(head, denoiser))
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
    config, generation = model.config.to_dict(), getattr(model, "generation_config", None)
    given = {"mask_token_id": mask_id, "eos_token_id": eos_id}.items()
    config |= {key: value for key, value in given if value is not None}
    family = _NATIVE.get(type(model).__name__)
    if hasattr(model, "peft_config"):
        raise CheckpointError("model must be merged first (merge_and_unload), got a model with a PEFT adapter on")
    if family is None:
        family = family_of(config)
        model = _fill_from_model(family, config, model.state_dict())
    elif config.get("mask_token_id") is None and getattr(tokenizer, "mask_token_id", None) is None:
        raise CheckpointError("mask_id must be given where neither config nor tokenizer names a mask token, got None")
    elif config.get("is_causal", True):
        warnings.warn(
            f"the config of this {type(model).__name__} does not say is_causal=False: it is read in both directions,"
            f" as a {family.name} model, and answers nonsense if it was trained from left to right",
            stacklevel=2,
        )
    devices = {str(parameter.device) for parameter in model.parameters()}
    if len(devices) > 1:
        raise CheckpointError(f"model must be on one device, got {', '.join(sorted(devices))}")
    named = {} if eos_id is not None else {"eos_token_id": getattr(generation, "eos_token_id", None)}
    return MaskedLM(
        model, shifted=family.shifted if shifted is None else shifted, **special_ids(family, config, tokenizer, named)
    )


_NATIVE = {family.native: family for family in (LLADA, DREAM)}


def empty_model(family: Family, config: Mapping[str, Any], stored: Mapping[str, tuple[int, ...]] | None = None) -> Any:
    """The native model of a config.json with every tensor on the meta device, bidirectional.

    Args:
        family: of the model.
        config: its config.json.
        stored: native names and shapes of the weights that belong on it, which must be exactly its own; None asks nothing.

    Raises:
        CheckpointError: if config and weights differ; of more blocks than are stored none is built.
    """
    import transformers

    settings = native_config(family, config)
    if stored is not None:
        count = settings.num_hidden_layers
        blocks = len({match[1] for name in stored if (match := re.match(r"model\.layers\.(\d+)\.", name))})
        if count > 64 + len(stored):  # fewer are built, and named one by one
            raise CheckpointError(f"blocks of the weights must be as many as the config's {count}, got {blocks}")
    native: type[Any] = getattr(transformers, family.native)
    with torch.device("meta"):
        model = native(settings)
    if stored is not None:
        checkpoint.check_names(model, stored, tied=bool(settings.tie_word_embeddings))
    return model


@dataclass(frozen=True)
class Stored:
    """Fingerprints of a checkpoint: over a sample of its values, and over all its bytes ("" where not taken)."""

    sampled: str
    full: str


def _from_files(
    family: Family,
    config: Mapping[str, Any],
    folder: Path,
    device: torch.device,
    *,
    dtype: torch.dtype | None,
    sealed: Mapping[str, str] | None,
    verify: bool,
) -> tuple[Any, Stored]:
    """The model with the stored tensors on it, each checked on its way: finite, and of the sums that the folder names."""
    files = checkpoint.weight_files(folder)
    shapes = checkpoint.stored_shapes(files)
    native = native_names(family, shapes)
    model = empty_model(family, config, {native[name]: shape for name, shape in shapes.items()})
    digests: dict[str, bytes] = {}
    sums: dict[str, Tensor] = {}
    kinds: set[torch.dtype] = set()
    finite = FiniteCheck(LARGEST)
    for name, tensor in checkpoint.stream(files):
        digests[native[name]] = checkpoint.digest(native[name], tensor)
        if not tensor.is_floating_point():
            raise CheckpointError(f"{name} of {folder} must hold floating-point numbers, got {tensor.dtype}")
        placed = tensor.to(device)
        if sealed is not None or verify:
            sums[name] = byte_sum(placed)
            kinds.add(tensor.dtype)
        placed = placed.to(dtype or tensor.dtype, copy=placed is tensor)
        finite.add(name, placed)
        checkpoint.assign(model, native[name], placed)
    finish(model, tied=bool(model.config.tie_word_embeddings))
    weights = dict(model.named_parameters())
    finite.finish({name: weights[native[name]] for name in finite.sums if native[name] in weights}, folder)
    found = spelled(sums)
    if sealed is not None:
        check_sums(found, sealed, folder)
    full = fingerprint_of({native[name]: value for name, value in found.items()}, kinds) if found else ""
    return model, Stored(checkpoint.combine(digests), full)


def stored_fingerprint(folder: Path) -> str:
    """What `Denoiser.fingerprint` says of the checkpoint in a folder, without a model to load it onto.

    Raises:
        CheckpointError: if the checkpoint is damaged or outside the two families.
    """
    family = family_of(checkpoint.read_json(folder / "config.json"))
    files = checkpoint.weight_files(folder)
    native = native_names(family, checkpoint.stored_shapes(files))
    return checkpoint.combine(
        {native[name]: checkpoint.digest(native[name], tensor) for name, tensor in checkpoint.stream(files)}
    )


def _fill_from_model(family: Family, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Any:
    """The native model of a config with the tensors of a state dict on it, shared."""
    native = native_names(family, state)
    model = empty_model(family, config, {native[name]: tuple(t.shape) for name, t in state.items()})
    for name, tensor in state.items():
        checkpoint.assign(model, native[name], tensor)
    finish(model, tied=bool(model.config.tie_word_embeddings))
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
