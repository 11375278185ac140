"""What a call fits: the model behind it, its cache, lengths and ids, and how candidates are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch

from decoding.calls.request import Request
from decoding.policy import Policy
from decoding.sampling import Sampling
from models.checkpoints.hub import BASE_FILES
from models.complaints import shown
from models.denoiser import Denoiser

MOST_LOADED = 2
_loaded: dict[str, tuple[list[tuple[str, int, int]], Denoiser]] = {}  # by resolved folder or hub id, the last used last


def as_denoiser(model: Any, options: Mapping[str, Any]) -> Denoiser:
    """A Denoiser as it is, a folder or hub id loaded (once), a loaded model wrapped with the tokenizer and ids that are given."""
    of_model = {name: options[name] for name in ("tokenizer", "mask_id", "eos_id") if name in options}
    loaded = isinstance(model, Denoiser | str | Path)
    if "tokenizer" in of_model and loaded:
        raise ValueError(f"tokenizer must come with a loaded LLaDA or Dream model, got a {type(model).__name__}")
    if isinstance(model, Denoiser):
        return model
    if isinstance(model, str | Path):
        return _load(str(model))
    if not hasattr(model, "config"):
        raise ValueError(f"model must be a Denoiser, a folder or hub id, or a loaded model, got {type(model).__name__}")
    return cast(Denoiser, import_module("models").wrap(model, **of_model))


def _load(path_or_hub_id: str) -> Denoiser:
    """The model of a folder, loaded again once its files have changed, or of a hub id; the last two are kept."""
    folder, name, stamp = Path(path_or_hub_id).expanduser(), path_or_hub_id, list[tuple[str, int, int]]()
    if folder.is_dir():
        name = str(folder.resolve())
        files = sorted({file for pattern in BASE_FILES for file in folder.glob(pattern) if file.is_file()})
        stamp = [(file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files]
    known = _loaded.pop(name, None)
    if known is None or known[0] != stamp:
        known = None  # gives the old weights back before the new ones are read
        for oldest in list(_loaded)[: len(_loaded) + 1 - MOST_LOADED]:
            _loaded.pop(oldest, None)
        known = stamp, cast(Denoiser, import_module("models").load(path_or_hub_id))
    _loaded[name] = known
    return known[1]


def with_cache(denoiser: Denoiser, mode: str) -> Denoiser:
    """The denoiser behind an empty block cache: `none`, `prefix` or `dual`."""
    if mode == "none":
        return denoiser
    if not hasattr(denoiser, "with_cache"):
        raise ValueError(f"use_cache must be none with a {type(denoiser).__name__}, got {shown(mode)}")
    return cast(Denoiser, cast(Any, denoiser).with_cache(mode))


def check_hooks(generator: Any, on_step: Any) -> None:
    """Refuse a source of chance that is no generator, and a hook that cannot be called.

    Raises:
        ValueError: in one sentence.
    """
    if not isinstance(generator, torch.Generator | None):
        raise ValueError(f"generator must be a torch.Generator, got {shown(generator)}")
    if on_step is not None and not callable(on_step):
        raise ValueError(f"on_step must be a function of state and reading, got {shown(on_step)}")


def check_fit(
    request: Request, denoiser: Denoiser, *, prompt_length: int, generator: torch.Generator | None
) -> tuple[int, ...]:
    """Refuse lengths, ids and a generator that do not fit the model; the ids that end an answer, given or the model's.

    Args:
        request: lengths and options of the call.
        denoiser: the model.
        prompt_length: longest prompt of the batch, in tokens.
        generator: of the draws, on the model's device; None without draws.

    Raises:
        ValueError: in one sentence, for what does not fit.
    """
    if prompt_length + request.gen_length > denoiser.max_length:
        longest = f"{prompt_length} + {request.gen_length}"
        raise ValueError(f"prompt + gen_length must be at most the model's {denoiser.max_length}, got {longest}")
    if generator is not None and _numbered(generator.device) != _numbered(denoiser.device):
        raise ValueError(f"generator must live on the model's device {denoiser.device}, got {generator.device}")
    mask_id = request.options.get("mask_id", denoiser.mask_id)
    if mask_id != denoiser.mask_id:
        raise ValueError(f"mask_id must be the model's {denoiser.mask_id}, got {shown(mask_id)}")
    given = request.options.get("eos_id")
    if given is None:
        return denoiser.end_ids
    given = given.tolist() if hasattr(given, "tolist") else given
    ids = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    for one in ids:
        if not isinstance(one, int) or isinstance(one, bool) or not 0 <= one < denoiser.vocab_size:
            raise ValueError(f"eos_id must lie in [0, {denoiser.vocab_size}), got {shown(one)}")
        if one == denoiser.mask_id:
            raise ValueError(f"eos_id must be another than the mask id {one}, got it")
    turn = [one for one in [denoiser.end_of_turn_id] if one is not None]
    return tuple(dict.fromkeys([*ids, *turn])) if ids else denoiser.end_ids


def _numbered(device: torch.device) -> tuple[str, int]:
    """A device by its number; the first where it has none."""
    return device.type, device.index or 0


def make_sampling(request: Request, denoiser: Denoiser, end_ids: tuple[int, ...], rule: Policy) -> Sampling:
    """Temperature and nucleus, the ids that are never a candidate or never confident, and what the policy wants drawn.

    Args:
        request: of the call.
        denoiser: the model.
        end_ids: the ids that end an answer, EOS first.
        rule: the policy, which says what it wants drawn.

    Raises:
        ValueError: for options that contradict the policy.
    """
    options, needs = request.options, rule.needs
    # what changes nothing beside draws from p^power
    for name, harmless in (("temperature", (0.0, 1 / needs.power)), ("top_p", (1.0,))):
        if needs.draws and options.get(name, harmless[0]) not in harmless:
            raise ValueError(
                f"{name} must be left out with policy {request.policy}, which draws from p^alpha itself, got {options[name]}"
            )
    if options.get("confidence_eos_eot_inf") and needs.looks:
        raise ValueError(
            f"confidence_eos_eot_inf must be left out where a cascade is looked at, got it with {needs.looks} looks a round"
        )
    if options.get("temperature") and needs.greedy:
        raise ValueError(f"temperature must be 0 with policy {request.policy}, got {options['temperature']}")
    eos = tuple(
        one for one in end_ids if one != denoiser.end_of_turn_id
    )  # LLaDA forbids EOS alone, not the end of a turn
    forbidden = eos if options.get("logits_eos_inf") else ()
    return Sampling(
        temperature=options.get("temperature", 0.0),
        top_p=options.get("top_p", 1.0),
        forbidden=(denoiser.mask_id, *forbidden),
        unconfident=end_ids if options.get("confidence_eos_eot_inf") else (),
        noise=needs.noise,
        draws=needs.draws,
        power=needs.power,
    )
