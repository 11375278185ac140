"""How much of a decode becomes a trace; imports nothing heavy, so that a command judges it first."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Labelling:
    """How many states are kept and how many branches of each are tried.

    Args:
        states_per_prompt: states kept of those that one decode visits, drawn uniformly.
        labelled: how many of them get branches.
        branches: branches per labelled state at most: the anchor, the beam's own k, some by confidence stratum, the rest uniform.
        strata: branches spread evenly over the order of confidence.
        finished: branches per labelled state that are decoded to the end for harm and benefit (tasks without a unique answer).
    """

    states_per_prompt: int = 4
    labelled: int = 1
    branches: int = 24
    strata: int = 8
    finished: int = 6

    def __post_init__(self) -> None:
        for field in fields(self):
            least = 1 if field.name in ("states_per_prompt", "branches") else 0
            if getattr(self, field.name) < least:
                raise ValueError(f"{field.name} must be at least {least}, got {getattr(self, field.name)}")
        if self.labelled > self.states_per_prompt:
            raise ValueError(
                f"labelled must be at most states_per_prompt {self.states_per_prompt}, got {self.labelled}"
            )
