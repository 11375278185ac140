"""A policy from its name and settings, and for `verified` the rule inside it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from importlib import import_module
from typing import Any, Literal, cast, get_origin

from decoding.calls.request import Request, is_number, meant_rule
from decoding.calls.spellings import ALIASES
from decoding.checked_names import OF_VERIFIED, VERIFIED, CheckedSettings
from decoding.names import DEFAULT_POLICY, NamedPolicy, find_policy
from decoding.policy import Policy
from models.complaints import shown
from models.denoiser import Denoiser

MOST = 1 << 17
"""No count of a policy is larger: what asks for more is a slip, and would be allocated."""
MOST_AT_ONCE = 1 << 10
"""Canvases and draws of a round: each is a forward, a draft after a draft, or a step of a chain."""
WORDS = {
    "int": f"a whole number from -{MOST} to {MOST}",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "None": "null",
}


def make_policy(
    policy: Policy | str, settings: Mapping[str, Any], denoiser: Denoiser, task: str | None = None
) -> Policy:
    """A policy as it is, or the one of a name (`find_policy`), with its settings and, where it has a head, the denoiser's.

    Args:
        policy: or its name.
        settings: of it, in any of the field's spellings.
        denoiser: whose head is meant.
        task: of the prompts, where the head may have defaults of its own for it.

    Raises:
        ValueError: for an unknown name, a setting that the policy does not have, a model without the head it needs, or more
            than MOST_AT_ONCE canvases or draws a round.
    """
    if isinstance(policy, Policy):
        return policy
    named = find_policy(policy)
    settings = {ALIASES.get(spelling, spelling): value for spelling, value in settings.items()}
    if policy == VERIFIED:
        settings = with_rule(settings, denoiser)
    free = settings_of(named)
    unknown = ", ".join(sorted(settings.keys() - free))
    if unknown:
        rule = f"be among {', '.join(sorted(free))}" if free else "be left out"
        raise ValueError(f"settings of policy {policy} must {rule}, got {unknown}")
    if named.head and denoiser.head is None and policy != VERIFIED:
        raise ValueError(f"policy {policy} must have a model loaded with head=FOLDER, got one without a head")
    kind = policy_class(named)
    check_kinds(kind, settings)
    head = {"head": denoiser.head} if named.head else {}
    made = cast(Policy, kind(**head, **named.fixed, **{**kind.brought(denoiser.head, task), **settings}))
    for what, count in {"canvases": made.needs.canvases, "draws": made.needs.draws}.items():
        if count > MOST_AT_ONCE:
            raise ValueError(f"{what} of policy {policy} must be at most {MOST_AT_ONCE} a round, got {count}")
    return made


def by_default(request: Request, denoiser: Denoiser) -> Request:
    """A call that names no policy and says nothing of one: as the denoiser's head decodes by default, where it says how."""
    defaults = getattr(denoiser.head, "defaults", None)
    if request.policy != DEFAULT_POLICY or request.settings or defaults is None:
        return request
    policy, settings = defaults.decoder
    return replace(request, policy=policy, settings=settings)


def policy_class(named: NamedPolicy) -> Any:
    """The class of a name, imported."""
    module, _, name = named.home.partition(":")
    return getattr(import_module(module), name)


def settings_of(named: NamedPolicy) -> set[str]:
    """The settings that a name leaves free."""
    return {f.name for f in fields(policy_class(named))} - named.fixed.keys() - {"head"}


def with_rule(settings: Mapping[str, Any], denoiser: Denoiser) -> dict[str, Any]:
    """The settings of `verified` with the rule that it checks in the place of that rule's name and settings.

    Raises:
        ValueError: for a rule that cannot be checked, and for a setting that neither of the two has.
    """
    checked = CheckedSettings.of(settings, meant=meant_rule(settings))
    if isinstance(checked.rule, Policy):
        return {**checked.own, "rule": checked.rule}
    rest = {"rule" if name == "risk_rule" else name: value for name, value in checked.of_rule.items()}
    free = settings_of(find_policy(checked.rule, "rule"))
    unknown = ", ".join(sorted(rest.keys() - free))
    if unknown:
        both = ", ".join(sorted({*OF_VERIFIED, *free}))
        raise ValueError(f"settings of policy {VERIFIED} with rule {checked.rule} must be among {both}, got {unknown}")
    if checked.rule == "learned" and rest.setdefault("looks", 0):
        raise ValueError(f"looks must be 0 with policy {VERIFIED}, which checks what it foretells, got {rest['looks']}")
    return {**checked.own, "rule": make_policy(checked.rule, rest, denoiser)}


def check_kinds(kind: type[Any], settings: Mapping[str, Any]) -> None:
    """Refuse settings of another type than the policy's field has; what is no number, truth or text is the policy's affair.

    Args:
        kind: the policy's class, a dataclass.
        settings: by the names of its fields.

    Raises:
        ValueError: in one sentence.
    """
    declared = {field.name: str(field.type) for field in fields(kind)}
    for name, value in settings.items():
        allowed = [_plain(kind, word.strip()) for word in declared.get(name, "").split("|")]
        if all(word in WORDS for word in allowed) and not any(_is(word, value) for word in allowed):
            rule = " or ".join(WORDS[word] for word in allowed)
            raise ValueError(f"{name} must be {rule}, got {shown(value)}")


def _plain(kind: type[Any], word: str) -> str:
    """A type as it is declared; the names of a Literal are text."""
    for base in kind.__mro__:
        if get_origin(vars(sys.modules[base.__module__]).get(word)) is Literal:
            return "str"
    return word


def _is(word: str, value: Any) -> bool:
    """Whether a value is of a type of WORDS."""
    if word == "None":
        return value is None
    if word in ("bool", "str"):
        return isinstance(value, bool if word == "bool" else str)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if word == "int":
        return isinstance(value, int) and abs(value) <= MOST
    return is_number(value)
