"""Risk control over a dial: upper bounds on a mean loss, fixed-sequence testing, and how many prompts a promise needs.

Learn then Test, Angelopoulos et al. arXiv 2110.01052: each setting of the dial has the null hypothesis that its true loss
exceeds the promise. The settings are tested from the careful end, each at the full error rate, up to the first that fails;
so with probability `confidence` every setting that passed keeps the promise, whichever of them is then chosen.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import logsumexp, xlog1py
from scipy.stats import beta

from models.complaints import shown

Loss = Literal["flip", "difference"]
LOSSES: tuple[Loss, ...] = get_args(Loss)
Losses = NDArray[np.float64]

BETS = 2.0 ** (-np.arange(10) / 2)  # 1, .71, .5, ... .044: shares of the capital
MOST_DOUBLINGS = 24


@dataclass(frozen=True)
class Outcomes:
    """One decoder on n prompts, every field [n].

    Attributes:
        right: 1 where its answer is right, else 0.
        answer: a number that names its text.
        rounds: it took.
    """

    right: NDArray[np.float64]
    answer: NDArray[np.float64]
    rounds: NDArray[np.float64]


@dataclass(frozen=True)
class TestedDial:
    """One setting of the dial on the calibration prompts.

    Attributes:
        value: the setting.
        loss: mean loss.
        bound: upper bound on the true mean loss.
        rounds: mean rounds.
        accuracy: share of right answers, None without a checker.
        holds: whether the bound is within the promise.
    """

    __test__ = False  # no test of pytest

    value: float
    loss: float
    bound: float
    rounds: float
    accuracy: float | None
    holds: bool


@dataclass(frozen=True)
class RiskControl:
    """What is promised: P(true mean loss <= max_loss) >= confidence, over draws of the calibration prompts.

    Args:
        loss: `flip`, 1 where the careful decode is right and the arm wrong, or where their texts differ if nothing can be
            checked; `difference`, careful right minus arm right, in {-1, 0, 1}, so that gains pay for losses.
        max_loss: in (0, 1).
        confidence: in (0, 1).
    """

    loss: Loss = "flip"
    max_loss: float = 0.01
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {shown(self.loss)}")
        for name in ("max_loss", "confidence"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in (0, 1), got {getattr(self, name)}")

    def losses(self, careful: Outcomes, arm: Outcomes, *, checked: bool) -> Losses:
        """The loss of every prompt [n]; `checked` says that a checker has judged the answers.

        Raises:
            ValueError: for `difference` where nothing is checked.
        """
        if not checked:
            require_checker(self.loss, checked)
            return np.asarray(careful.answer != arm.answer, dtype=float)
        difference: Losses = careful.right - arm.right
        return difference if self.loss == "difference" else difference.clip(min=0.0)

    def bound(self, losses: Losses) -> float:
        """Upper bound on the true mean loss at the confidence; in [0, 1]."""
        if self.loss == "flip":
            return clopper_pearson(int(losses.sum()), len(losses), self.confidence)
        return betting_bound(losses, self.confidence)

    def bound_of_share(self, share: float, prompts: int) -> float:
        """The bound where a share of so many prompts, rounded up, has loss 1 and no prompt a gain."""
        lost = math.ceil(share * prompts - 1e-9)
        if self.loss == "flip":
            return clopper_pearson(lost, prompts, self.confidence)
        return _betting_bound(lost, prompts - lost, 0, self.confidence)

    def prompts_needed(self, share: float = 0.0) -> int | None:
        """The fewest prompts whose bound is within the promise at a share of losses; None where no number is enough.

        Args:
            share: of prompts with loss 1, in [0, 1]; 0 gives what any promise needs.
        """
        return fewest(lambda prompts: self.bound_of_share(share, prompts) <= self.max_loss)

    def test(self, value: float, careful: Outcomes, arm: Outcomes, *, checked: bool = True) -> TestedDial:
        """Measure one setting of the dial against the careful decode on the same prompts.

        Args:
            value: the setting.
            careful, arm: both decoders on the same prompts, in the same order.
            checked: whether a checker judged the answers; else texts are compared.
        """
        losses = self.losses(careful, arm, checked=checked)
        bound = self.bound(losses)
        accuracy = float(arm.right.mean()) if checked else None
        holds = bound <= self.max_loss
        return TestedDial(value, float(losses.mean()), bound, float(arm.rounds.mean()), accuracy, holds)


def require_checker(loss: str, checked: bool) -> None:
    """Refuse a loss that only a checker can tell.

    Raises:
        ValueError: in one sentence.
    """
    if loss == "difference" and not checked:
        raise ValueError(f"loss must be flip where no checker judges the answers, got {shown(loss)}")


def clopper_pearson(events: int, trials: int, confidence: float) -> float:
    """Exact upper bound on a probability after `events` in `trials`: the p with P(Binomial(trials, p) <= events) = 1 - confidence.

    Clopper and Pearson 1934: the `confidence` quantile of Beta(events + 1, trials - events).
    """
    if events >= trials:
        return 1.0
    return float(beta.ppf(confidence, events + 1, trials - events))


def betting_bound(differences: Losses, confidence: float) -> float:
    """Upper bound on the mean of values in {-1, 0, 1}: the smallest mean that bets against it do not refute.

    K(m) = mean over bets b of prod_i (1 + b (m - x_i)) is an e-value where the true mean is at least m, so by Markov
    P(K(m) >= 1 / (1 - confidence)) <= 1 - confidence. Every factor grows with m: the bound is the root. Waudby-Smith and Ramdas
    arXiv 2010.09686, diversified Kelly betting; the bets do not change with time, so the order of prompts does not matter.

    Args:
        differences: [n], each -1, 0 or 1.
        confidence: in (0, 1).

    Returns:
        The bound in [0, 1]; a mean below 0 is bounded by 0.
    """
    lost, gained = int((differences > 0).sum()), int((differences < 0).sum())
    return _betting_bound(lost, len(differences) - lost - gained, gained, confidence)


@lru_cache(maxsize=4096)
def _betting_bound(lost: int, same: int, gained: int, confidence: float) -> float:
    """The bound from the counts of 1, 0 and -1."""

    def excess(mean: float) -> float:
        capital = xlog1py(lost, BETS * (mean - 1)) + xlog1py(same, BETS * mean) + xlog1py(gained, BETS * (mean + 1))
        return float(np.maximum(logsumexp(capital) - math.log(len(BETS)) + math.log(1 - confidence), -1e300))

    if excess(1.0) <= 0:
        return 1.0
    if excess(0.0) >= 0:
        return 0.0
    return float(brentq(excess, 0.0, 1.0, xtol=1e-12))


def fewest(enough: Callable[[int], bool]) -> int | None:
    """The smallest whole number that is enough, by doubling and bisection; None where 2^23 is too few."""
    high = next((count for count in (2**power for power in range(MOST_DOUBLINGS)) if enough(count)), None)
    return None if high is None else high // 2 + 1 + bisect_left(range(high // 2 + 1, high), True, key=enough)


def fixed_sequence(values: Iterable[float], measure: Callable[[float], TestedDial]) -> list[TestedDial]:
    """Test settings in their order up to the first that fails, which is the last of the list; later ones are not measured."""
    tested = []
    for value in values:
        tested.append(measure(value))
        if not tested[-1].holds:
            break
    return tested


def choose_calibrated(
    weights: Losses, flips: Losses, rounds: Losses, order: Sequence[int], control: RiskControl
) -> NDArray[np.int64]:
    """Index [R] of the fewest rounds among the settings that hold, tested anew in every resample; -1 where none holds.

    Args:
        weights: [R, n] over prompts, every line sums to 1.
        flips: [S, n] losses of every setting of the dial, 0 or 1.
        rounds: [R, S] mean rounds.
        order: of the settings, from the careful end.
        control: what is promised, of the loss `flip`.
    """
    prompts = flips.shape[1]
    lost = np.rint(prompts * (weights @ flips.T))[:, list(order)]
    bounds = np.where(lost < prompts, beta.ppf(control.confidence, lost + 1, np.maximum(prompts - lost, 0.5)), 1.0)
    passed = np.logical_and.accumulate(bounds <= control.max_loss, axis=1)
    holds = np.zeros_like(passed)
    holds[:, list(order)] = passed
    cheapest: NDArray[np.int64] = np.where(holds, rounds, np.inf).argmin(1)
    cheapest[~holds.any(1)] = -1
    return cheapest


def choose(tested: Sequence[TestedDial]) -> TestedDial | None:
    """Of the settings that hold the one with the fewest rounds; None where none holds."""
    return min((dial for dial in tested if dial.holds), key=lambda dial: dial.rounds, default=None)
