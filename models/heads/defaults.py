"""The settings that `learned` takes with a head where none are given: `defaults.json` in the head's folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from models.checkpoints.json_files import read_object

FILE = "defaults.json"
ALONE = "confidence"  # the rule that does not ask the head
CAREFUL = 0.01  # its bound where nothing has chosen one


@dataclass(frozen=True)
class Defaults:
    """How a head decodes by default; chosen on dev prompts at the end of a fit.

    Args:
        rule: of `learned`; None means the head's own.
        risk_bound: in (0, 1].
        looks: at the cascade a round at most, at least 0; 0 with the rule `confidence` is `risk-sum`, which asks no head.
    """

    rule: str | None
    risk_bound: float
    looks: int

    def __post_init__(self) -> None:
        if not isinstance(self.rule, str | None):
            raise ValueError(f"rule must be a name or null, got {self.rule!r}")
        if isinstance(self.risk_bound, bool) or not 0 < self.risk_bound <= 1:
            raise ValueError(f"risk_bound must lie in (0, 1], got {self.risk_bound}")
        if not isinstance(self.looks, int) or isinstance(self.looks, bool) or self.looks < 0:
            raise ValueError(f"looks must be a whole number of at least 0, got {self.looks!r}")

    @property
    def alone(self) -> bool:
        """Whether the head is left out."""
        return self.rule == ALONE and not self.looks


def write_defaults(defaults: Defaults, folder: Path) -> None:
    """Write `defaults.json`, aside and renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / (FILE + ".part")
    aside.write_text(json.dumps(asdict(defaults), indent=1) + "\n", encoding="utf-8")
    aside.replace(folder / FILE)


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
        return Defaults(**{field.name: raw[field.name] for field in fields(Defaults)})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} must hold rule, risk_bound and looks of a head, got {error}") from error
