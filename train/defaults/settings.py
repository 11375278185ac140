"""What a user may say of how a head's default settings are chosen; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Trials:
    """How the settings that a head decodes with by default are chosen: by decoding dev prompts end to end.

    Args:
        screen: dev prompts of a task on which every setting is tried.
        confirm: further ones at most that decide, and that the figures are told from; under 200 nothing is decided, and under
            300 nothing is taken but drafts that the rule itself checks.
        bounds: risk bounds that are tried, in any order.
        minutes: what all tasks may take together, roughly: the further prompts of a task are cut to it, to 200 at least, by
            the time that the screened ones took; None decodes all of them.
    """

    screen: int = 64
    confirm: int = 600
    bounds: tuple[float, ...] = (0.1, 0.03, 0.01, 0.003, 0.001)
    minutes: float | None = None

    def __post_init__(self) -> None:
        for name in ("screen", "confirm"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"minutes must be above 0, got {self.minutes}")
        if not self.bounds or not all(0 < bound <= 1 for bound in self.bounds):
            raise ValueError(f"bounds must lie in (0, 1], at least one, got {self.bounds}")
