"""Whether prompts still look like those a dial was calibrated on, from what needs no labels.

Every prompt gets a score, how surprising its decode was. If it is exchangeable with the calibration prompts, its rank among all
scores so far is uniform, and so is the conformal p-value; a gambler who bets on small or large p-values gains nothing then, and
gets rich where the prompts are of another kind. Conformal test martingales: Vovk et al., arXiv 2102.10439, the Simple Jumper.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

VERSION = 1
ALARM = 0.01
"""Chance of ever being warned of prompts that are exchangeable with the calibration prompts, at most."""
JUMP = 0.01  # share of the capital that is dealt anew with every prompt, so that a late change is seen
BETS = (-1.0, 0.0, 1.0)
DIGITS = 5  # of a score: what is below moves with the number format
SAID: Mapping[str, tuple[str, str]] = {
    "surprise": ("tokens are less sure", "tokens are surer"),
    "forced": ("more commits are forced", "fewer commits are forced"),
    "failed_drafts": ("drafts come true less often", "drafts come true more often"),
}
"""Score -> what it means where it is higher, and where it is lower, than on the calibration prompts."""


def scores_of(figures: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """The scores of decodes, each in the order of the prompts.

    `surprise`: bits (-log2 confidence) a commit. `forced`: share of the commits that only the need of progress made.
    `failed_drafts`: share of the drafts that did not come true, 0 without drafts.

    Args:
        figures: bits, commits, unforced, drafts and drafts_true of every prompt.
    """
    names = ("bits", "commits", "unforced", "drafts", "drafts_true")
    rows = list(zip(*(figures[name] for name in names), strict=True))
    return {
        "surprise": [round(bits / max(commits, 1), DIGITS) for bits, commits, *_ in rows],
        "forced": [round(1 - unforced / max(commits, 1), DIGITS) for _, commits, unforced, *_ in rows],
        "failed_drafts": [round(1 - true / drafts if drafts else 0.0, DIGITS) for *_, drafts, true in rows],
    }


@dataclass(frozen=True)
class Reference:
    """The scores of the calibration prompts, as calibration.json holds them.

    Attributes:
        version: of this format.
        scores: name -> one for each prompt.
    """

    version: int
    scores: Mapping[str, Sequence[float]]

    @staticmethod
    def of(figures: Mapping[str, Sequence[float]]) -> Reference:
        """Those of calibration prompts; scores that are the same everywhere are left out, for they tell nothing.

        Args:
            figures: as for `scores_of`.
        """
        found = scores_of(figures)
        return Reference(VERSION, {name: sorted(values) for name, values in found.items() if len(set(values)) > 1})

    @staticmethod
    def read(stored: Any) -> Reference | None:
        """What a file holds; None for a file without scores, or with those of a later version.

        Raises:
            ValueError: for scores that are no numbers.
        """
        if not isinstance(stored, Mapping) or stored.get("version") != VERSION:
            return None
        try:
            scores = {str(name): [float(one) for one in values] for name, values in stored["scores"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"reference must hold lists of scores, got {type(error).__name__} {error}") from None
        if not all(math.isfinite(one) for values in scores.values() for one in values):
            raise ValueError("reference must hold finite scores, got others")
        return Reference(VERSION, {name: values for name, values in scores.items() if name in SAID and values})


@dataclass
class Gambler:
    """The Simple Jumper on one score: what betting against exchangeability has made of a capital of 1.

    Under exchangeability the p-values are independent and uniform, and the capital is a martingale: by Ville's inequality it ever
    reaches 1 / alpha with probability at most alpha.

    Attributes:
        seen: scores so far, those of the calibration prompts first, sorted.
        stakes: the capital on each of BETS.
        most: the most that it has been.
    """

    seen: list[float]
    stakes: list[float] = field(default_factory=lambda: [1 / len(BETS)] * len(BETS))
    most: float = 1.0

    def see(self, score: float, tie: float) -> float:
        """Bet on the next prompt; returns the capital.

        Args:
            score: its score.
            tie: a uniform draw in [0, 1], which places it among equal scores.
        """
        above = len(self.seen) - bisect_right(self.seen, score)
        equal = bisect_right(self.seen, score) - bisect_left(self.seen, score) + 1
        insort(self.seen, score)
        p = (above + tie * equal) / len(self.seen)
        total = sum(self.stakes)
        mixed = [(1 - JUMP) * stake + JUMP * total / len(BETS) for stake in self.stakes]
        self.stakes = [stake * (1 + bet * (p - 0.5)) for stake, bet in zip(mixed, BETS, strict=True)]
        self.most = max(self.most, sum(self.stakes))
        return sum(self.stakes)


class ShiftTest:
    """A running test of whether prompts are exchangeable with the calibration prompts.

    One gambler for each score, each at its share of `alarm`: the chance of a false alarm is at most `alarm`, however many prompts
    are seen (a union over the scores, Ville's inequality for each).

    Args:
        reference: of the calibration.
        alarm: in (0, 1).
        seed: of the draws that place equal scores.
    """

    def __init__(self, reference: Reference, *, alarm: float = ALARM, seed: int = 0) -> None:
        if not 0 < alarm < 1:
            raise ValueError(f"alarm must lie in (0, 1), got {alarm}")
        self._gamblers = {name: Gambler(sorted(values)) for name, values in reference.scores.items()}
        self._means = {name: sum(values) / len(values) for name, values in reference.scores.items()}
        self._sums = dict.fromkeys(self._gamblers, 0.0)
        self._alarm, self._draws, self.prompts = alarm, random.Random(seed), 0

    def see(self, scores: Mapping[str, float]) -> None:
        """Take in the scores of the next prompt."""
        self.prompts += 1
        for name, gambler in self._gamblers.items():
            gambler.see(scores[name], self._draws.random())
            self._sums[name] += scores[name]

    @property
    def chance(self) -> float:
        """Bound on the chance that exchangeable prompts ever look as odd as these did; 1 before any is seen."""
        most = max((gambler.most for gambler in self._gamblers.values()), default=1.0)
        return min(1.0, len(self._gamblers) / most)

    @property
    def shifted(self) -> bool:
        """Whether the prompts do not look like those calibrated on."""
        return self.chance <= self._alarm

    def sentence(self) -> str:
        """What is odd, in one line."""
        name = max(self._gamblers, key=lambda one: self._gamblers[one].most)
        here, there = self._sums[name] / max(self.prompts, 1), self._means[name]
        what = SAID[name][here < there]
        return (
            f"the {self.prompts} prompts so far do not look like those calibrated on: {what} ({name} {here:.3f}, there "
            f"{there:.3f}; chance of a false alarm at most {self._alarm:g}), so what was promised may not hold for them"
        )
