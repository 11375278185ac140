"""How a head decodes where nothing is said: `defaults.json` in its folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from models.checkpoints.json_files import read_object
from models.checkpoints.manifest import adding
from models.complaints import shown

FILE = "defaults.json"
ALONE = "confidence"  # the rule that does not ask the head
CAREFUL = 0.01  # its bound where nothing has chosen one

Checking = Literal["exact", "subset"]


@dataclass(frozen=True)
class Defaults:
    """How a head decodes by default; chosen on dev prompts at the end of a fit.

    Args:
        rule: of `learned`; None means the head's own.
        risk_bound: in (0, 1].
        looks: at the cascade a round at most, at least 0; 0 with the rule `confidence` is `risk-sum`, which asks no head.
        checked: mode in which the cascade drafts what that rule will commit and the next forward checks it (`verified`, with its
            own number of canvases): `exact` gives the rule's texts in fewer rounds, `subset` texts of its own; None drafts nothing.
            Only with the rule alone. Taken where no policy is named; where `learned` is, that has its own settings.
        tasks: (name, defaults) of the tasks that have their own.
    """

    rule: str | None
    risk_bound: float
    looks: int
    checked: Checking | None = None
    tasks: tuple[tuple[str, Defaults], ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.rule, str | None):
            raise ValueError(f"rule must be a name or null, got {shown(self.rule)}")
        if isinstance(self.risk_bound, bool) or not 0 < self.risk_bound <= 1:
            raise ValueError(f"risk_bound must lie in (0, 1], got {self.risk_bound}")
        if not isinstance(self.looks, int) or isinstance(self.looks, bool) or self.looks < 0:
            raise ValueError(f"looks must be a whole number of at least 0, got {shown(self.looks)}")
        if self.checked not in (None, *get_args(Checking)):
            raise ValueError(
                f"checked must be null or one of {', '.join(get_args(Checking))}, got {shown(self.checked)}"
            )
        if self.checked and not self.alone:
            raise ValueError(f"checked must go with the rule {ALONE} and no looks, got {self.rule} and {self.looks}")

    @property
    def alone(self) -> bool:
        """Whether the head's risks are left out."""
        return self.rule == ALONE and not self.looks

    def of(self, task: str | None) -> Defaults:
        """Those of a task: its own, or what holds for all others."""
        return dict(self.tasks).get(task or "", replace(self, tasks=()))

    @property
    def settings(self) -> dict[str, Any]:
        """What `learned` takes, unless drafts are checked, which it does not do."""
        return {"rule": self.rule, "risk_bound": self.risk_bound, "looks": self.looks}

    @property
    def decoder(self) -> tuple[str, dict[str, Any]]:
        """Name and settings of the policy that is meant where none is named."""
        if self.checked:
            mode = {"mode": self.checked} if self.checked != "exact" else {}
            return "verified", {"rule": "risk-sum", "risk_bound": self.risk_bound, **mode}
        return "learned", self.settings


def write_defaults(defaults: Defaults, folder: Path) -> None:
    """Write `defaults.json`, aside and renamed, with its checksum beside those of the folder's head."""
    raw = {**_raw(defaults), **({"tasks": {n: _raw(one) for n, one in defaults.tasks}} if defaults.tasks else {})}
    with adding(folder) as aside:
        (aside / FILE).write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")


def _raw(defaults: Defaults) -> dict[str, Any]:
    return {**defaults.settings, **({"checked": defaults.checked} if defaults.checked else {})}


def read_defaults(folder: Path) -> Defaults | None:
    """The defaults of a head's folder, None where it has none.

    Raises:
        ValueError: if the file is none of this project's.
    """
    file = folder / FILE
    if not file.exists():
        return None
    try:
        raw = read_object(file)
        return replace(_defaults(raw), tasks=tuple((n, _defaults(one)) for n, one in raw.get("tasks", {}).items()))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        why = " ".join(str(error).splitlines())[:300]
        raise ValueError(f"{file} must hold rule, risk_bound and looks of a head, got {why}") from error


def _defaults(raw: Any) -> Defaults:
    checked = raw.get("checked")
    if isinstance(checked, bool):  # as it was written while drafts could only be checked exactly
        checked = "exact" if checked else None
    return Defaults(raw["rule"], raw["risk_bound"], raw["looks"], checked)
