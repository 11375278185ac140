"""The names that people type: policies, the field's spellings of every setting, and what contradicts what.

Imports nothing heavy, so that a command judges its arguments before it loads anything.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from decoding.checked_names import VERIFIED, CheckedSettings


@dataclass(frozen=True)
class NamedPolicy:
    """A policy as people name it.

    Attributes:
        home: where the class is, "module:Class".
        fixed: settings that the name fixes.
        dial: the setting that trades rounds for accuracy, of `decoding.comparison.arms.DIALS`; "" where it has none.
        head: whether the class has a field `head`, which gets the denoiser's scoring head.
    """

    home: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    dial: str = ""
    head: bool = False


_HERE = "decoding.policies"
POLICIES: Mapping[str, NamedPolicy] = {
    "sequential": NamedPolicy(f"{_HERE}.quota:Sequential"),
    "random": NamedPolicy(f"{_HERE}.quota:Sequential", {"order": "random"}),
    "left-to-right": NamedPolicy(f"{_HERE}.quota:Sequential", {"order": "left_to_right"}),
    "quota": NamedPolicy(f"{_HERE}.quota:Quota", dial="steps"),
    "dream-quota": NamedPolicy(f"{_HERE}.dream_quota:DreamQuota", dial="steps"),
    "threshold": NamedPolicy(f"{_HERE}.threshold:Threshold", dial="threshold"),
    "margin": NamedPolicy(f"{_HERE}.threshold:MarginThreshold", dial="margin"),
    "entropy": NamedPolicy(f"{_HERE}.threshold:EntropyThreshold", dial="entropy_threshold"),
    "factor": NamedPolicy(f"{_HERE}.bounds:Factor", dial="factor"),
    "entropy-bound": NamedPolicy(f"{_HERE}.bounds:EntropyBound", dial="entropy_bound"),
    "risk-sum": NamedPolicy(f"{_HERE}.bounds:RiskSum", dial="risk_bound"),
    "ete": NamedPolicy(f"{_HERE}.ete:BeamETE", dial="threshold"),
    "random-parity": NamedPolicy(f"{_HERE}.ete:RandomParity", dial="threshold"),
    "lopa": NamedPolicy(f"{_HERE}.lopa:LoPA", dial="threshold"),
    "imh": NamedPolicy(f"{_HERE}.imh:IndependentMH", dial="proposals"),
    "draft-verify": NamedPolicy(f"{_HERE}.remask:DraftVerify", dial="draft"),
    "remask-lowest": NamedPolicy(f"{_HERE}.remask:RemaskLowest", dial="threshold"),
    "learned": NamedPolicy(f"{_HERE}.learned:Learned", dial="risk_bound", head=True),
    "learned-ete": NamedPolicy(f"{_HERE}.learned_ete:LearnedETE", dial="risk_bound", head=True),
    "learned-parity": NamedPolicy(f"{_HERE}.learned_ete:LearnedParity", dial="threshold", head=True),
    "verified": NamedPolicy(f"{_HERE}.verified:Verified", head=True),
    "wino": NamedPolicy(f"{_HERE}.field.wino:WINO", dial="threshold"),
    "dawn": NamedPolicy(f"{_HERE}.field.dawn:DAWN", dial="tau_low"),
    "info-gain": NamedPolicy(f"{_HERE}.field.info_gain:InfoGain", dial="threshold"),
    "klass": NamedPolicy(f"{_HERE}.field.klass:KLASS", dial="threshold"),
    "freedave": NamedPolicy(f"{_HERE}.field.freedave:FreeDave"),
    "frechet": NamedPolicy(f"{_HERE}.field.frechet:FrechetProfile", dial="frechet_margin"),
    "saber": NamedPolicy(f"{_HERE}.field.saber:Saber", dial="least"),
    "slow-fast": NamedPolicy(f"{_HERE}.field.slow_fast:SlowFast", dial="threshold"),
    "pc-sampler": NamedPolicy(f"{_HERE}.field.pc_sampler:PCSampler", dial="per_round"),
}
"""The policies of this project; a policy of one's own is named `package.module:Class`."""


def find_policy(name: str, subject: str = "policy") -> NamedPolicy:
    """The policy of a name, or of one's own at `package.module:Class`, whose module is imported.

    Args:
        name: of POLICIES, underscores taken for hyphens, or `package.module:Class`.
        subject: what the complaint calls it.

    Raises:
        ValueError: in one sentence, for an unknown name or a place without such a class.
    """
    if name.replace("_", "-") in POLICIES:
        return POLICIES[name.replace("_", "-")]
    module, colon, kind = name.partition(":")
    if not colon:
        known = f"{', '.join(POLICIES)}, or package.module:Class"
        raise ValueError(f"{subject} must be one of {known}, got {shown(name)}{nearest(name, POLICIES)}")
    try:
        found = getattr(import_module(module), kind)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(f"{subject} must be a class that can be imported, got {shown(name)} ({error})") from error
    if not hasattr(found, "__dataclass_fields__") or not hasattr(found, "propose"):
        raise ValueError(f"{subject} must be a Policy, a dataclass with `propose`, got {shown(name)}")
    return NamedPolicy(name, head="head" in found.__dataclass_fields__)


DEFAULT_POLICY = "learned"

BLOCK_LENGTH = 32
"""Block length where none is given and it divides the generation length; else the canvas is one block."""

ALIASES: Mapping[str, str] = {
    "turns": "looks",
    "max_new_tokens": "gen_length",
    "max_tokens": "gen_length",
    "gen_len": "gen_length",
    "block_size": "block_length",
    "canvas_length": "block_length",
    "dllm_block_length": "block_length",
    "diffusion_steps": "steps",
    "denoising_steps": "steps_per_block",
    "confidence_threshold": "threshold",
    "dynamic_threshold": "threshold",
    "dllm_confidence_threshold": "threshold",
    "accept_thres": "threshold",
    "eb_threshold": "entropy_bound",
    "remasking_strategy": "remasking",
    "alg": "remasking",
    "mask_token_id": "mask_id",
    "eos_token_id": "eos_id",
    "eos_early_stop": "early_stop",
    "output_history": "history",
    "cache": "use_cache",
}
"""The field's spelling -> ours."""

REMASKING: Mapping[str, tuple[str, str | None]] = {
    "low_confidence": ("quota", "confidence"),  # LLaDA
    "random": ("quota", "random"),
    "low_confidence_static": ("quota", "confidence"),  # SDAR
    "low_confidence_dynamic": ("threshold", None),
    "entropy_bounded": ("entropy-bound", None),
    "sequential": ("quota", "left_to_right"),
    "maskgit_plus": ("dream-quota", "confidence"),  # Dream
    "topk_margin": ("dream-quota", "margin"),
    "entropy": ("dream-quota", "entropy"),
    "origin": ("dream-quota", "random"),
    "confidence_threshold": ("threshold", None),
    "entropy_threshold": ("entropy", None),
}
"""Value of `remasking` -> the policy it means, and the order of a policy that has one."""

ORDERED = ("sequential", "quota", "dream-quota")
"""Policies with an order."""

RULES: Mapping[str, str] = {
    "factor": "factor",
    "threshold": "threshold",
    "entropy_bound": "entropy-bound",
    "entropy_threshold": "entropy",
    "margin": "margin",
    "remasking": "quota",  # unless REMASKING says otherwise
    "steps": "quota",
    "steps_per_block": "quota",
}
"""The policy that a setting means where no policy is named; the first that is given decides, as in Fast-dLLM."""

IGNORED: Mapping[str, frozenset[str]] = {
    "threshold": frozenset({"steps", "steps_per_block"}),
    "factor": frozenset({"steps", "steps_per_block", "threshold"}),
    "entropy-bound": frozenset({"steps", "steps_per_block"}),
}
"""Settings that the field passes along with a rule and that the rule then ignores."""

WITHOUT_EFFECT: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "cfg_scale": ((0, None), "there is no classifier-free guidance here"),
    "alg_temp": ((None, 0), "the order of positions is not sampled here, apart from remasking random"),
    "top_k": ((None, 0, -1), "candidates are limited by top_p here"),
    "editing_threshold": ((None,), "committed tokens are never edited here"),
    "edit_threshold": ((None,), "committed tokens are never edited here"),
    "max_post_steps": ((None, 0), "committed tokens are never edited here"),
    "return_dict_in_generate": ((True, None), "the result is always an object"),
    "generation_tokens_hook_func": ((None,), "a hook only reads here: pass it as on_step"),
}
"""Settings of other decoders that are accepted only at values that change nothing, and why."""

CACHES: Mapping[Any, str] = {None: "none", False: "none", "": "none", "none": "none", True: "prefix"} | {
    name: name for name in ("prefix", "dual")
}
LONGEST = 120  # characters of a value that is shown
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

_OF_THE_FIELD = {*ALIASES, *ALIASES.values(), *RULES, *WITHOUT_EFFECT, "dual_cache"}  # None means not given


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
            rule = within if high < float("inf") else f"be {'above' if open_below else 'at least'} {low}"
            raise ValueError(f"{name} must {rule}, got {shown(value)}")


def shown(value: object) -> str:
    """A value as a complaint shows it: as Python writes it, a long one cut."""
    text = repr(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


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


def nearest(name: str, known: Collection[str]) -> str:
    """A question about the known name that is most like a misspelt one; "" where none is like it."""
    found = get_close_matches(name, known, n=1, cutoff=0.7)
    return f": did you mean {found[0]}?" if found else ""


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
