"""A LoRA adapter merged into the weights of a loaded base, whichever names it was trained on."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from models.checkpoints.config_numbers import is_finite, says_nothing
from models.checkpoints.families import CheckpointError, Family
from models.checkpoints.files import combine, digest, read_json, require_regular, stream
from models.checkpoints.manifest import check_files, settle
from models.checkpoints.sums import check_finite
from models.complaints import shown
from models.masked_lm import MaskedLM

_KEY = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.(?P<part>lora_[AB]\.weight|lora_magnitude_vector)")
_PART = re.compile(r"(lora_[AB]|lora_magnitude_vector)(\.weight)?$")
_MAGNITUDE = "lora_magnitude_vector"
_HALVES = ("lora_A.weight", "lora_B.weight")
_KEPT = (
    "r",
    "lora_alpha",
    "use_rslora",
    "use_dora",
    "fan_in_fan_out",
)  # PEFT itself sets the last aside on a linear layer
_CHOICE = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
"""Settings by which PEFT chooses modules."""
_PATTERNS = ("rank_pattern", "alpha_pattern")
_WITHOUT_EFFECT = (
    *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"),
    *(
        "lora_dropout",
        "runtime_config",
        "megatron_core",
        "qalora_group_size",
    ),  # of training, or of switches that are off
    *_CHOICE,  # compared with the modules that are stored
    *(
        "eva_config",
        "loftq_config",
        "corda_config",
        "lora_ga_config",
    ),  # of starts, of which the plain ones are let through
)
"""Settings that change nothing about what the stored matrices mean."""
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Starts of training that leave the base's weights as they are."""
_BY_PEFT = "merge it with PEFT itself: PeftModel.from_pretrained(base, folder).merge_and_unload(), and save that"
_BY_START = (
    "its matrices belong to a base that training changed; convert it with PEFT"
    " (save_pretrained(folder, path_initial_model_for_weight_conversion=...)), or save the model that PEFT merged"
)
MOST = 1 << 16


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

    settle(folder)
    settings = _read_settings(folder)
    stored = _read_tensors(folder, dora=bool(settings.get("use_dora")))
    names = _modules(denoiser, family, folder, stored)
    _check_targets(settings, names, folder)
    check_files(folder)
    tensors = {f"{names[match['module']]}.{match['part']}": tensor for match, tensor in stored}
    spelled = _settings_by_module(settings, names)
    if denoiser.model.config.tie_word_embeddings and "lm_head" in names.values():
        raise CheckpointError(f"{folder} must leave the LM head of a base with tied embeddings alone, got LoRA on it")
    _check_shapes(denoiser, folder, tensors, spelled)
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
    try:
        denoiser.model = adapted.merge_and_unload(safe_merge=True).requires_grad_(False)
    except ValueError as error:  # PEFT names the adapter, "merged", and no module
        raise CheckpointError(
            f"the weights merged with {folder} must be finite numbers, got others: {error}"
        ) from error
    added = {"": base.encode() + json.dumps(spelled, sort_keys=True).encode()}
    denoiser.renew_fingerprint(combine(added | {name: digest(name, tensor) for name, tensor in tensors.items()}))
    return matched


def _read_settings(folder: Path) -> dict[str, Any]:
    """adapter_config.json, refused where its matrices mean something else than W + scale B A on linear layers."""
    settings = read_json(folder / "adapter_config.json")
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(f"peft_type of the adapter must be LORA, got {shown(kind)}")
    for key, value in settings.items():
        known = (*_KEPT, *_PATTERNS, *_WITHOUT_EFFECT, "peft_type", "init_lora_weights", "bias")
        if key not in known and not says_nothing(value):
            raise CheckpointError(f"{key} of the adapter must be left out or empty, got {shown(value)} ({_BY_PEFT})")
    if settings.get("bias", "none") not in ("none", None):
        raise CheckpointError(f"bias of the adapter must be 'none', got {shown(settings['bias'])} ({_BY_PEFT})")
    start = settings.get("init_lora_weights", True)
    if start not in _PLAIN_STARTS:
        names = ", ".join(repr(one) for one in _PLAIN_STARTS if one is not None)
        raise CheckpointError(
            f"init_lora_weights of the adapter must leave the base as it is (one of {names}), got {shown(start)}: {_BY_START}"
        )
    _check_numbers(settings)
    return settings


def _check_numbers(settings: Mapping[str, Any]) -> None:
    """Refuse ranks, alphas and switches of a wrong type or size."""
    for key in ("use_rslora", "use_dora", "fan_in_fan_out"):
        if not isinstance(settings.get(key) or False, bool):
            raise CheckpointError(f"{key} of the adapter must be true or false, got {shown(settings[key])}")
    patterns = {key: settings.get(key) or {} for key in _PATTERNS}
    for key, pattern in patterns.items():
        if not isinstance(pattern, dict):
            raise CheckpointError(f"{key} of the adapter must be an object of module names, got {shown(pattern)}")
    _check_patterns(settings, _PATTERNS)
    ranks = {"r": settings.get("r", 8), **{f"{k} of rank_pattern": v for k, v in patterns["rank_pattern"].items()}}
    alphas = {"lora_alpha": settings.get("lora_alpha", 8)}
    alphas |= {f"{k} of alpha_pattern": v for k, v in patterns["alpha_pattern"].items()}
    for key, value in ranks.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST:
            raise CheckpointError(f"{key} of the adapter must be a whole number from 1 to {MOST}, got {shown(value)}")
    for key, value in alphas.items():
        if not is_finite(value):
            raise CheckpointError(f"{key} of the adapter must be a finite number, got {repr(value)[:60]}")


def _read_tensors(folder: Path, *, dora: bool) -> list[tuple[re.Match[str], Tensor]]:
    """Every tensor of the adapter with its module and part; magnitudes of every module where it is DoRA, else of none."""
    file = folder / "adapter_model.safetensors"
    require_regular(file)
    if not file.is_file():
        raise CheckpointError(f"an adapter folder must hold {file.name}, got none in {folder}")
    stored = dict(stream([file]))
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
    sized = {match["module"] for match in matches.values() if match and match["part"] == _MAGNITUDE}
    if sized != (halves[0] if dora else set()):
        odd = sorted(sized ^ halves[0])[0] if dora else sorted(sized)[0]
        wanted = "a magnitude of every module with use_dora" if dora else "no magnitudes without use_dora"
        raise CheckpointError(f"{file} must hold {wanted}, got {'none' if dora else 'one'} for {odd}")
    check_finite(stored, file)
    return [(match, stored[name]) for name, match in matches.items() if match is not None]


def _check_shapes(denoiser: MaskedLM, folder: Path, tensors: Mapping[str, Tensor], spelled: Mapping[str, Any]) -> None:
    """Refuse matrices that do not have the base's sizes and the rank of the settings, before PEFT allocates its own."""
    for name, tensor in tensors.items():
        module, _, part = name.removesuffix(".weight").rpartition(".")
        weight = denoiser.model.get_submodule(module).weight
        rank = spelled["rank_pattern"].get(module, spelled.get("r", 8))
        needed = {"lora_A": (rank, weight.shape[1]), "lora_B": (weight.shape[0], rank)}.get(part, (weight.shape[0],))
        if tuple(tensor.shape) != needed:
            fits = "must fit the base and adapter_config.json"
            raise CheckpointError(f"the tensors of {folder} {fits}: {name} needs {needed}, got {tuple(tensor.shape)}")


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
            raise CheckpointError(f"every module of {folder} must be one of the base, got {shown(stored)}")
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


def _check_targets(settings: Mapping[str, Any], stored: Collection[str], folder: Path) -> None:
    """Refuse an adapter whose settings leave out a module that it stores: PEFT sets its matrices aside without an error.

    Args:
        settings: of adapter_config.json; without target_modules nothing is compared.
        stored: names of the modules with matrices.
        folder: of the adapter.

    Raises:
        CheckpointError: naming the first such module.
    """
    if settings.get("target_modules") in (None, [], ""):
        return
    aside = next((name for name in sorted(stored) if not _is_chosen(settings, name)), None)
    if aside is not None:
        raise CheckpointError(
            "target_modules of the adapter (with exclude_modules and layers_to_transform) must choose every module that"
            f" {folder} stores, got {aside} left out"
        )


def _is_chosen(settings: Mapping[str, Any], name: str) -> bool:
    from peft.tuners.tuners_utils import check_target_module_exists

    choice: Any = SimpleNamespace(**{key: settings.get(key) for key in _CHOICE})
    try:
        return bool(check_target_module_exists(choice, name))
    except (re.error, TypeError, ValueError, AttributeError) as error:
        known = ", ".join(_CHOICE)
        raise CheckpointError(f"{known} of the adapter must name modules as PEFT does, got {error}") from error


def _check_patterns(settings: Mapping[str, Any], names: Collection[str]) -> None:
    """Refuse patterns that are no regular expressions.

    Args:
        settings: of adapter_config.json.
        names: of those that are patterns of modules.
    """
    for name in names:
        for pattern in settings.get(name) or {}:
            try:
                re.compile(pattern)
            except re.error as error:
                raise CheckpointError(
                    f"{name} of the adapter must hold regular expressions, got {shown(pattern)} ({error})"
                ) from error
