"""A call in any of the field's spellings, read into this project's words; contradictions are refused with the rule broken.

Imports nothing heavy, so that a command judges its arguments before it loads anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from decoding.calls.spellings import ALIASES, CACHES, IGNORED, ORDERED, REMASKING, RULES, WITHOUT_EFFECT
from decoding.checked_names import VERIFIED, CheckedSettings
from decoding.names import DEFAULT_POLICY, find_policy
from models.complaints import shown

BLOCK_LENGTH = 32
"""Block length where none is given and it divides the generation length; else the canvas is one block."""

WHOLE = 2**53  # up to which a float holds every whole number
RANGES: Mapping[str, tuple[int, bool, float]] = {
    "threshold": (0, True, 1),
    "top_p": (0, True, 1),
    "factor": (0, True, float("inf")),
    "temperature": (0, False, float("inf")),
    "steps": (1, False, float("inf")),
    "steps_per_block": (1, False, float("inf")),
}
"""Setting -> lowest value, whether that one is excluded, highest value; policies check the rest when they are made."""

_OF_THE_FIELD = {
    *(*ALIASES, *ALIASES.values(), *RULES, *WITHOUT_EFFECT),
    *("dual_cache", "temperature", "top_p"),
}  # None means not given
OF_THE_MODEL = ("mask_id", "eos_id", "tokenizer", "chat")
EOS_OPTIONS = ("logits_eos_inf", "confidence_eos_eot_inf")  # LLaDA's: EOS is never a candidate; never a confident one


@dataclass(frozen=True)
class Request:
    """What a call asks for, in this project's words.

    Attributes:
        policy: a name of POLICIES, or a policy object.
        settings: of the named policy.
        gen_length, block_length: of the canvas.
        options: the rest, by names of OPTIONS.
    """

    policy: Any
    gen_length: int
    block_length: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


OPTIONS = ("temperature", "top_p", "early_stop", "history", "use_cache", *EOS_OPTIONS, *OF_THE_MODEL)
SWITCHES = ("early_stop", "history", "chat", *EOS_OPTIONS)


def resolve(policy: Any, given: Mapping[str, Any]) -> Request:
    """Read a call in any of the field's spellings.

    Args:
        policy: a policy object, a name, or None: what the settings mean in the field, else `learned`.
        given: every keyword of the call.

    Raises:
        ValueError: for contradictions and values out of range; the sentence holds the name, the rule and the value.
    """
    if not isinstance(policy, str | None) and not hasattr(policy, "propose"):
        raise ValueError(f"policy must be a name or a policy object, got {shown(policy)}")
    settings = canonical(given)
    name = _name(policy, settings) if policy is None or isinstance(policy, str) else ""
    gen_length, block_length = _lengths(settings, whole=name == "dream-quota")
    options = {name: settings.pop(name) for name in OPTIONS if name in settings}
    _check_ranges({**options, **settings})
    if not name:
        if settings:
            raise ValueError(f"settings must be left out with a policy object, got {', '.join(settings)}")
        return Request(policy, gen_length, block_length, {}, options)
    if name == VERIFIED:
        checked = CheckedSettings.of(settings, meant=meant_rule(settings))
        of_rule = checked.of_rule
        if isinstance(checked.rule, str):
            of_rule = _settings(checked.rule, dict(of_rule), gen_length, block_length)
        return Request(name, gen_length, block_length, {**checked.own, **of_rule, "rule": checked.rule}, options)
    settings = _settings(name, settings, gen_length, block_length)
    return Request(name, gen_length, block_length, settings, options)


def meant_rule(settings: Mapping[str, Any]) -> str:
    """The rule that settings mean in the field, `threshold` where they mean none."""
    return next((RULES[name] for name in RULES if name in settings), "threshold")


def canonical(given: Mapping[str, Any]) -> dict[str, Any]:
    """Our spelling of every setting; of the field's own settings None means not given."""
    values: dict[str, Any] = {}
    spelled: dict[str, str] = {}
    for spelling, value in ((spelling, plain(value)) for spelling, value in given.items()):
        if spelling in WITHOUT_EFFECT:
            neutral, why = WITHOUT_EFFECT[spelling]
            if value not in neutral:
                raise ValueError(f"{spelling} must be {shown(neutral[0])} because {why}, got {shown(value)}")
        elif value is not None or spelling not in _OF_THE_FIELD:
            name = ALIASES.get(spelling, spelling)
            if name in values and values[name] != value:
                raise ValueError(
                    f"{spelled[name]} and {spelling} must agree, got {shown(values[name])} and {shown(value)}"
                )
            values[name], spelled[name] = value, spelling
    return _with_cache(values)


def plain(value: Any) -> Any:
    """A number of numpy or torch as Python's own; anything else as it is."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


def _with_cache(values: dict[str, Any]) -> dict[str, Any]:
    dual = values.pop("dual_cache", False)
    if not isinstance(dual, bool):
        raise ValueError(f"dual_cache must be true or false, got {shown(dual)}")
    if dual and values.get("use_cache", True) not in (True, "dual"):
        raise ValueError(f"use_cache must be 'dual' with dual_cache, got {shown(values['use_cache'])}")
    if dual:
        values["use_cache"] = "dual"
    if "use_cache" in values:
        if not isinstance(values["use_cache"], str | bool | None) or values["use_cache"] not in CACHES:
            raise ValueError(f"use_cache must be none, prefix or dual, got {shown(values['use_cache'])}")
        values["use_cache"] = CACHES[values["use_cache"]]
    return values


def _lengths(settings: dict[str, Any], *, whole: bool) -> tuple[int, int]:
    gen_length = _whole("gen_length", settings.pop("gen_length", None))
    default = gen_length if whole or gen_length % BLOCK_LENGTH else BLOCK_LENGTH
    block_length = _whole("block_length", settings.pop("block_length", default))
    if gen_length % block_length:
        raise ValueError(f"gen_length must be a multiple of block_length ({block_length}), got {gen_length}")
    return gen_length, block_length


def _whole(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {shown(value)}")
    return value


def _check_ranges(values: Mapping[str, Any]) -> None:
    for name, (low, open_below, high) in RANGES.items():
        value = values.get(name)
        if value is None:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool) and is_number(value)
        number = number and (name == "factor" or value < float("inf"))
        if not number or not low <= value <= high or (open_below and value == low):
            within = f"lie in {'(' if open_below else '['}{low}, {high}]"
            least = f"{'above' if open_below else 'at least'} {low}"
            least += " and finite" if isinstance(value, int | float) and value > WHOLE else ""
            raise ValueError(f"{name} must {within if high < float('inf') else f'be {least}'}, got {shown(value)}")
    for name in SWITCHES:
        if not isinstance(values.get(name), bool | None):
            raise ValueError(f"{name} must be true or false, got {shown(values[name])}")
    if values.get("top_p", 1) < 1 and not values.get("temperature"):
        raise ValueError(f"top_p must be 1 at temperature 0, where no candidate is drawn, got {values['top_p']}")


def refuse_equal(name: str, count: int, *, drawn: bool) -> None:
    """Refuse several answers to a prompt where nothing is drawn, so that all would be the same; `name` asks for them.

    Raises:
        ValueError: in one sentence.
    """
    if count > 1 and not drawn:
        raise ValueError(f"{name} must be 1 at temperature 0, where every answer is the same, got {count}")


def is_number(value: int | float) -> bool:
    """Whether a number is one that a float holds; infinity is, NaN is not."""
    return abs(value) <= WHOLE if isinstance(value, int) else not math.isnan(value)


def _name(policy: str | None, settings: Mapping[str, Any]) -> str:
    """The policy named, or the one that the settings mean."""
    if policy is not None:
        find_policy(policy)
        return policy if ":" in policy else policy.replace("_", "-")
    rule = next((rule for rule in RULES if rule in settings), None)
    if rule is None or not settings.keys() <= {*RULES, *OPTIONS, "order", "gen_length", "block_length"}:
        return DEFAULT_POLICY
    return REMASKING.get(str(settings[rule]), ("quota", None))[0] if rule == "remasking" else RULES[rule]


def _settings(name: str, settings: dict[str, Any], gen_length: int, block_length: int) -> dict[str, Any]:
    """What the named policy gets: the order that remasking means, steps in all, nothing that the rule ignores."""
    left = {n: v for n, v in settings.items() if n not in IGNORED.get(name, ())}
    blocks = gen_length // block_length
    if "remasking" in left:
        left |= _order(name, left.pop("remasking"), left.get("order"))
    if "steps_per_block" in left:
        total = left.pop("steps_per_block") * blocks
        if left.setdefault("steps", total) != total:
            raise ValueError(f"steps must be steps_per_block times the number of blocks ({total}), got {left['steps']}")
    if name == "dream-quota" and blocks > 1:
        raise ValueError(f"block_length must be gen_length ({gen_length}) with policy {name}, got {block_length}")
    if name in ("quota", "dream-quota") and left.setdefault("steps", gen_length) % blocks:
        raise ValueError(f"steps must be a multiple of the number of blocks ({blocks}), got {left['steps']}")
    for rule in RULES.keys() & left.keys() - {"threshold", "factor"}:
        if RULES[rule] != name.removeprefix("dream-"):
            raise ValueError(f"{rule} must be left out with policy {name}, got {shown(left[rule])}")
    return left


def _order(name: str, remasking: Any, order: str | None) -> dict[str, str]:
    if not isinstance(remasking, str) or remasking not in REMASKING:
        raise ValueError(f"remasking must be one of {', '.join(REMASKING)}, got {shown(remasking)}")
    policy, meant = REMASKING[remasking]
    if name == policy and meant is None:
        return {}
    if name in ORDERED and meant is not None:
        if order not in (None, meant):
            raise ValueError(f"order must be {meant} with remasking {remasking}, got {shown(order)}")
        return {"order": str(meant)}
    if meant == "confidence" and name in ("threshold", "factor"):
        return {}  # both rank by confidence anyway
    raise ValueError(f"remasking {remasking} must go with policy {policy}, got policy {name}")
