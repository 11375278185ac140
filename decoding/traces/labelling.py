"""How much of a decode becomes a trace; imports nothing heavy, so that a command judges it first."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace


@dataclass(frozen=True)
class Labelling:
    """How many states are kept and how many branches of each are tried.

    Args:
        states_per_prompt: states kept of those that one decode visits, drawn uniformly.
        labelled: how many of them get branches.
        branches: branches per labelled state at most: the anchor, the beam's own k, some by confidence stratum, the rest uniform.
        strata: branches spread evenly over the order of confidence.
        finished: branches per labelled state that are decoded to the end for harm and benefit (tasks without a unique answer);
            those that force what the free finish says anyway are judged with it and not counted.
        dev_branches: branches per labelled state of dev prompts; None tries every position, the unbiased oracle of the metrics.
        bare: positions per labelled state that are committed alone, without what the beam commits in any case, as labels of the
            loss on pairs, which uses no others where these are there; 0, for each costs a forward and most fits have no such loss.
    """

    states_per_prompt: int = 4
    labelled: int = 1
    branches: int = 24
    strata: int = 8
    finished: int = 6
    dev_branches: int | None = None
    bare: int = field(default=0, repr=False)  # folders of traces from before it name the others

    def __post_init__(self) -> None:
        for setting in fields(self):
            least = 1 if setting.name in ("states_per_prompt", "branches", "dev_branches") else 0
            value = getattr(self, setting.name)
            if value is not None and value < least:
                raise ValueError(f"{setting.name} must be at least {least}, got {value}")
        if self.labelled > self.states_per_prompt:
            raise ValueError(
                f"labelled must be at most states_per_prompt {self.states_per_prompt}, got {self.labelled}"
            )

    def of_split(self, split: str, canvas: int) -> Labelling:
        """The same with the branches that a split of prompts gets on canvases of this length."""
        return self if split == "train" else replace(self, branches=self.dev_branches or canvas)
