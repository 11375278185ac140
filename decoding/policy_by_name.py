"""A policy from its name and settings, and for `verified` the rule inside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from importlib import import_module
from typing import Any, cast

from decoding.checked_names import OF_VERIFIED, VERIFIED, CheckedSettings
from decoding.names import ALIASES, DEFAULT_POLICY, NamedPolicy, Request, find_policy, meant_rule
from decoding.policy import Policy
from models.denoiser import Denoiser


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
        ValueError: for an unknown name, a setting that the policy does not have, or a model without the head it needs.
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
    head = {"head": denoiser.head} if named.head else {}
    return cast(Policy, kind(**head, **named.fixed, **{**kind.brought(denoiser.head, task), **settings}))


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
