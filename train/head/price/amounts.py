"""How much a collection is, counted from its settings and from what decodes of a task were seen to take; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from decoding.traces.labelling import Labelling

STATE_BYTES = 9.0  # in a file of traces, of each position of a state
BRANCH_BYTES = 5.0  # of each position that a branch tells of: a token and a confidence, compressed


@dataclass(frozen=True)
class Size:
    """How much a collection is.

    Attributes:
        seconds: it takes.
        prompts: decoded.
        states: kept.
        branches: tried, each with a gain label.
        risks: labels of risk: positions of states with a unique answer, judged or held-back branches elsewhere.
        gigabytes: on disk.
    """

    seconds: float = 0.0
    prompts: float = 0.0
    states: float = 0.0
    branches: float = 0.0
    risks: float = 0.0
    gigabytes: float = 0.0

    def times(self, factor: float) -> Size:
        """The same for so many times as many prompts."""
        return Size(*(factor * value for value in vars(self).values()))

    def __add__(self, other: Size) -> Size:
        """Both."""
        return Size(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def __str__(self) -> str:
        """For people."""
        labels = f"{self.states:.0f} states, {self.branches:.0f} gain labels, {self.risks:.0f} risk labels"
        return f"{self.prompts:.0f} prompts, {labels}, {self.gigabytes:.4f} GB, {self.seconds / 3600:.3f} h"


@dataclass(frozen=True)
class Decoded:
    """What one policy's decode of one prompt takes.

    Attributes:
        rounds: forwards in a row.
        canvases: through the base in all.
        open: positions that a round may commit, in the average state it passes through.
        unsure: of these, those that the look-ahead does not commit in any case.
        masked: positions still to be filled there.
    """

    rounds: float
    canvases: float
    open: float
    unsure: float
    masked: float


@dataclass(frozen=True)
class Pace:
    """What a task's prompts take on this machine.

    Attributes:
        seconds: of one canvas in a forward.
        length: positions of a canvas, its prompt among them.
        decoded: driver -> what its decode of a prompt takes.
        guessed: whether not one decode got far enough, so that one token a round was assumed.
    """

    seconds: float
    length: int
    decoded: Mapping[str, Decoded]
    guessed: bool = False


def counted(pace: Pace, labelling: Labelling, counts: Mapping[str, int], *, unique: bool) -> Size:
    """The collection of a task, counted: every label that the settings allow is taken to be made.

    Args:
        pace: of the task.
        labelling: how many states and branches.
        counts: split -> its prompts, which the drivers share.
        unique: whether the task has one right answer, so that no branch is decoded to its end.
    """
    size = Size()
    for split, prompts in counts.items():
        of_split = labelling.of_split(split, pace.length)
        for decoded in pace.decoded.values():
            size += _of_prompt(pace, decoded, of_split, unique=unique).times(prompts / len(pace.decoded))
    return size


def _of_prompt(pace: Pace, decoded: Decoded, labelling: Labelling, *, unique: bool) -> Size:
    """What one prompt gives and takes: its decode, then of each labelled state a look at it, its branches and its ends."""
    kept = min(float(labelling.states_per_prompt), decoded.rounds)
    labelled = min(float(labelling.labelled), kept)
    branches = min(float(labelling.branches), decoded.unsure)
    bare = min(float(labelling.bare), decoded.open)
    ends = 0.0 if unique else 1 + min(float(labelling.finished), branches)
    canvases = 2 + branches + (1 + bare if bare else 0) + ends * (1 + decoded.masked)
    written = kept if unique else labelled
    told = (branches + bare) * decoded.open
    return Size(
        seconds=pace.seconds * (decoded.canvases + labelled * canvases),
        prompts=1.0,
        states=written,
        branches=labelled * branches,
        risks=written * decoded.open if unique else labelled * branches,
        gigabytes=(written * pace.length * STATE_BYTES + labelled * told * BRANCH_BYTES) / 1e9,
    )
