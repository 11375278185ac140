"""What people type to have a rule checked: the settings of `verified` itself, and the rules that it can check.

Imports nothing heavy, as `decoding.calls.request`, which reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.complaints import shown

VERIFIED = "verified"
OF_VERIFIED = ("rule", "canvases", "mode", "source", "draft_share", "worth")
"""Its own settings; all others are those of the rule."""

CHECKED_RULES = (
    *("sequential", "left-to-right", "quota", "threshold", "margin", "entropy", "factor", "entropy-bound", "risk-sum"),
    "learned",
)
"""Beside them a policy of one's own, `package.module:Class`, that says it is `checkable`."""


@dataclass(frozen=True)
class CheckedSettings:
    """The settings of `verified`, taken apart.

    Attributes:
        rule: name of the rule, or a policy object.
        own: settings of `verified`, the rule left out.
        of_rule: settings of the rule.
    """

    rule: Any
    own: Mapping[str, Any]
    of_rule: Mapping[str, Any]

    @staticmethod
    def of(settings: Mapping[str, Any], *, meant: str) -> CheckedSettings:
        """Take settings apart.

        Args:
            settings: of `verified` and of the rule, side by side; `risk_rule` is the `rule` of `learned`.
            meant: the rule where none is named.

        Raises:
            ValueError: for a rule that cannot be checked, and for settings beside a rule that is an object.
        """
        own = {name: value for name, value in settings.items() if name in OF_VERIFIED and name != "rule"}
        left = {name: value for name, value in settings.items() if name not in OF_VERIFIED}
        rule = settings.get("rule", meant)
        if not isinstance(rule, str):
            if left:
                raise ValueError(f"settings of the rule must be left out with a policy object, got {', '.join(left)}")
            return CheckedSettings(rule, own, left)
        name = rule if ":" in rule else rule.replace("_", "-")
        if name not in CHECKED_RULES and ":" not in name:
            known = ", ".join(CHECKED_RULES)
            raise ValueError(
                f"rule of policy {VERIFIED} must be one of {known}, or package.module:Class, got {shown(rule)}"
            )
        return CheckedSettings(name, own, left)


def needs_head(policy: str, settings: Mapping[str, Any], reads_head: bool) -> bool:
    """Whether a policy cannot do without a scoring head; `reads_head` says whether its class has one."""
    if policy != VERIFIED:
        return reads_head
    return settings.get("source") == "cascade" or settings.get("rule") == "learned"


def uses_head(policy: str, settings: Mapping[str, Any], reads_head: bool) -> bool:
    """Whether a policy reads a scoring head where there is one."""
    return reads_head and (policy != VERIFIED or settings.get("source") != "reading" or settings["rule"] == "learned")
