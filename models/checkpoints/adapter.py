"""A LoRA adapter merged into the weights of a loaded base, whichever names it was trained on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from models.checkpoints.families import CheckpointError, Family
from models.checkpoints.files import combine, digest, read_json
from models.masked_lm import MaskedLM

_KEY = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.(?P<part>lora_[AB]\.weight|lora_magnitude_vector)")
_PART = re.compile(r"(lora_[AB]|lora_magnitude_vector)(\.weight)?$")
_HALVES = ("lora_A.weight", "lora_B.weight")
_KEPT = ("r", "lora_alpha", "use_rslora", "use_dora", "fan_in_fan_out")


def merge_adapter(denoiser: MaskedLM, family: Family, folder: Path) -> int:
    """Add a PEFT LoRA adapter to the weights: W + (alpha / r) B A.

    Module names may be native (`o_proj`, `gate_proj`, ...) or those of the authors' code (`attn_out`, `ff_proj`, ...).

    Args:
        denoiser: the base, changed in place; its fingerprint becomes that of base and adapter.
        family: of the base.
        folder: with adapter_config.json and adapter_model.safetensors.

    Returns:
        How many modules the adapter changed.

    Raises:
        CheckpointError: if the adapter is no plain LoRA, or a module of it is not in the base.
    """
    from peft import LoraConfig, LoraModel
    from peft.tuners.lora import LoraLayer

    settings = _read_settings(folder)
    stored = _read_tensors(folder)
    names = _modules(denoiser, family, folder, stored)
    tensors = {f"{names[match['module']]}.{match['part']}": tensor for match, tensor in stored}
    spelled = _settings_by_module(settings, names)
    base = denoiser.fingerprint()
    adapted: Any = LoraModel(denoiser.model, LoraConfig(target_modules=sorted(names.values()), **spelled), "merged")
    matched = sum(isinstance(module, LoraLayer) for module in adapted.modules())
    placed = {_PART.sub(r"\1.merged.weight", name): tensor for name, tensor in tensors.items()}
    try:
        unexpected = adapted.model.load_state_dict(placed, strict=False).unexpected_keys
    except RuntimeError as error:
        raise CheckpointError(f"the tensors of {folder} must fit the base and adapter_config.json: {error}") from error
    if matched != len(names) or unexpected:
        raise CheckpointError(f"{folder} must change {len(names)} modules of the base, got {matched}")
    denoiser.model = adapted.merge_and_unload(safe_merge=True).requires_grad_(False)
    added = {"": base.encode() + json.dumps(spelled, sort_keys=True).encode()}
    denoiser.renew_fingerprint(combine(added | {name: digest(name, tensor) for name, tensor in tensors.items()}))
    return matched


def _read_settings(folder: Path) -> dict[str, Any]:
    """adapter_config.json, refused where it asks for more than LoRA on linear layers."""
    settings = read_json(folder / "adapter_config.json")
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(f"peft_type of the adapter must be LORA, got {kind!r}")
    for key, plain in {"bias": "none", "modules_to_save": None, "lora_bias": False}.items():
        if settings.get(key, plain) not in (plain, []):
            raise CheckpointError(f"{key} of the adapter must be {plain!r}, got {settings[key]!r}")
    return settings


def _read_tensors(folder: Path) -> list[tuple[re.Match[str], Tensor]]:
    """Every tensor of the adapter with its module and part."""
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise CheckpointError(f"an adapter folder must hold {file.name}, got none in {folder}")
    try:
        stored = load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} must be a whole safetensors file, got {error}") from error
    matches = {name: _KEY.fullmatch(name) for name in stored}
    strange = [name for name, match in matches.items() if match is None]
    if strange or not stored:
        raise CheckpointError(
            f"{file} must hold LoRA weights of linear layers, got {strange[0] if strange else 'none'}"
        )
    halves = [{match["module"] for match in matches.values() if match and match["part"] == p} for p in _HALVES]
    if halves[0] != halves[1]:
        lonely = sorted(halves[0] ^ halves[1])[0]
        raise CheckpointError(f"{file} must hold lora_A and lora_B of every module, got one of them for {lonely}")
    return [(match, stored[name]) for name, match in matches.items() if match is not None]


def _modules(
    denoiser: MaskedLM, family: Family, folder: Path, tensors: list[tuple[re.Match[str], Tensor]]
) -> dict[str, str]:
    """Module name in the adapter -> in the native model."""
    known = {name for name, _ in denoiser.model.named_modules()}
    names: dict[str, str] = {}
    for stored in sorted({match["module"] for match, _ in tensors}):
        native = stored
        if stored not in known:
            try:
                native = next(iter(family.native_names({f"{stored}.weight": None}))).removesuffix(".weight")
            except ValueError:
                native = stored
        if native not in known:
            raise CheckpointError(f"every module of {folder} must be one of the base, got {stored!r}")
        names[stored] = native
    return names


def _settings_by_module(settings: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The settings PEFT needs, with ranks and alphas that differ by module spelled out under native names."""
    from peft.utils.other import get_pattern_key

    def spell(patterns: Mapping[str, int]) -> dict[str, int]:
        keys = {stored: get_pattern_key(list(patterns), stored) for stored in names}
        return {names[stored]: patterns[key] for stored, key in keys.items() if key in patterns}

    kept = {key: settings[key] for key in _KEPT if key in settings}
    return kept | {key: spell(settings.get(key) or {}) for key in ("rank_pattern", "alpha_pattern")}
