"""Statistics of accuracy against rounds: resamples of prompts, curves, rounds at reference, AUP, parity, calibration.

Every statistic is computed from weights over prompts, for the sample itself (line 0) and for all its resamples at once;
arms that saw the same prompts share one set of weights, so every comparison is paired.

Axis letters: R resamples, line 0 the sample itself · n prompts · S dial settings of an arm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RESAMPLES = 2000
TOLERANCE = 0.01  # an arm is at reference when it is at most this much less accurate
SLACK = 1e-9  # for differences of exactly one point


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % bootstrap interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """One arm on one split, every field [R, S]: means over prompts, line 0 those of the sample itself."""

    accuracy: Array
    rounds: Array
    forwards: Array
    tokens: Array

    @staticmethod
    def of(weights: Array, *, right: Array, rounds: Array, forwards: Array, tokens: Array) -> Curve:
        """Average the columns [S, n] of an arm over the prompts of every resample.

        Args:
            weights: [R, n], how often each resample draws each prompt, over n.
            right, rounds, forwards, tokens: [S, n], of each setting on each prompt.
        """
        return Curve(*(weights @ column.T for column in (right, rounds, forwards, tokens)))


@dataclass(frozen=True)
class AtReference:
    """The cheapest dial setting that is as accurate as the reference.

    Attributes:
        dial: index of the setting chosen on the dev split, None where none qualifies.
        rounds: [R] mean rounds on the test split at the setting chosen in that resample, NaN where none qualifies.
        difference: [R] accuracy there minus that of the reference.
        holds: whether the difference on the test split is still within the tolerance; None without a setting.
        null_share: share of resamples in which no setting qualifies.
    """

    dial: int | None
    rounds: Array
    difference: Array
    holds: bool | None
    null_share: float


@lru_cache(maxsize=4)
def resample(prompts: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """Weights [R, n] over prompts: line 0 the sample, the others drawn with replacement; every line sums to 1.

    The same call gives the same array, which cannot be written to.
    """
    if prompts < 1:
        raise ValueError(f"prompts must be at least 1, got {prompts}")
    drawn = np.random.default_rng(seed).multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples)
    weights: Array = np.vstack([np.ones(prompts), drawn]) / prompts
    weights.flags.writeable = False
    return weights


def interval(draws: Array) -> Estimate | None:
    """The figure of the sample (line 0) with the 2.5 and 97.5 percentiles of its resamples; None where it is NaN."""
    if not np.isfinite(draws[0]):
        return None
    finite = draws[1:][np.isfinite(draws[1:])]
    low, high = np.percentile(finite, [2.5, 97.5]) if len(finite) else (draws[0], draws[0])
    return Estimate(float(draws[0]), float(low), float(high))


def p_value(draws: Array, *, null: float) -> float:
    """Two-sided bootstrap p: twice the smaller share of resamples on either side of `null`, (1 + count) / (1 + R)."""
    finite = draws[1:][np.isfinite(draws[1:])]
    below, above = (1 + (finite <= null).sum()) / (1 + len(finite)), (1 + (finite >= null).sum()) / (1 + len(finite))
    return float(min(1.0, 2 * min(below, above)))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: the i-th smallest of m becomes max over j <= i of (m - j + 1) p_(j), at most 1."""
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def isotonic(rounds: Array, accuracy: Array) -> Array:
    """Least-squares fit of accuracy that never falls as rounds grow: max_{j<=i} min_{k>=i} mean(y_j..y_k), per line."""
    order = np.argsort(rounds, axis=1, kind="stable")
    ordered = np.take_along_axis(accuracy, order, 1)
    settings = ordered.shape[1]
    total = np.pad(ordered.cumsum(1), ((0, 0), (1, 0)))
    start, stop = np.arange(settings)[:, None], np.arange(1, settings + 1)[None]
    mean = np.where(start < stop, (total[:, None, 1:] - total[:, :-1, None]) / np.maximum(stop - start, 1), np.inf)
    suffix = np.minimum.accumulate(mean[:, :, ::-1], axis=2)[:, :, ::-1]  # min over k >= i of the mean from j to k
    fit = np.where(start < stop, suffix, -np.inf).max(axis=1)
    fitted: Array = np.empty_like(fit)
    np.put_along_axis(fitted, order, fit, 1)
    return fitted


def choose_dial(curve: Curve, reference: Array, *, tolerance: float = TOLERANCE) -> NDArray[np.int64]:
    """Index [R] of the fewest rounds whose isotonic accuracy is within the tolerance of the reference; -1 if none."""
    qualifies = isotonic(curve.rounds, curve.accuracy) >= reference[:, None] - tolerance - SLACK
    cheapest: NDArray[np.int64] = np.where(qualifies, curve.rounds, np.inf).argmin(1)
    cheapest[~qualifies.any(1)] = -1
    return cheapest


def at_reference(
    dev: Curve, dev_reference: Array, test: Curve, test_reference: Array, *, tolerance: float = TOLERANCE
) -> AtReference:
    """Choose the dial on the dev split and measure it on the test split, both anew in every resample.

    Args:
        dev, test: the arm on the two splits.
        dev_reference, test_reference: [R] accuracy of the reference on the same prompts.
        tolerance: how much less accurate a setting may be on the dev split.
    """
    chosen = choose_dial(dev, dev_reference, tolerance=tolerance)
    rounds, accuracy = pick(test.rounds, chosen), pick(test.accuracy, chosen)
    difference = accuracy - test_reference
    exists = chosen[0] >= 0
    return AtReference(
        dial=int(chosen[0]) if exists else None,
        rounds=rounds,
        difference=difference,
        holds=bool(difference[0] >= -tolerance - SLACK) if exists else None,
        null_share=float((chosen[1:] < 0).mean()),
    )


def pick(values: Array, index: NDArray[np.int64]) -> Array:
    """The value of setting `index` in every line, NaN where the index is -1."""
    chosen = np.take_along_axis(values, np.maximum(index, 0)[:, None], 1)[:, 0]
    return np.where(index < 0, np.nan, chosen)


def aup(speed: Array, accuracy: Array, reference: Array, best: Array) -> Array:
    """Accuracy under parallelism [R], in percent.

    AUP = ρ₁y₁ + Σ ½(ρᵢ − ρᵢ₋₁)(yᵢW(yᵢ) + yᵢ₋₁W(yᵢ₋₁)), W(y) = min(exp(−3(1 − y/y_max)), 1), over the points with
    y >= y₁ − 5 sorted by ρ, the reference (ρ = 1, y₁) first (d3LLM). Points slower than the reference are left out.

    Args:
        speed: [R, S] tokens per round, or per sequence forward.
        accuracy: [R, S] as shares.
        reference: [R] accuracy of the reference.
        best: [R] best accuracy of any arm on the task.
    """
    start, top = 100 * reference[:, None], np.maximum(100 * best[:, None], SLACK)
    counts = (100 * accuracy >= start - 5 - SLACK) & (speed >= 1)
    rho = np.hstack([np.ones_like(start), np.where(counts, speed, 1.0)])  # a point left out becomes the reference again
    y = np.hstack([start, np.where(counts, 100 * accuracy, start)])
    order = np.argsort(rho, axis=1, kind="stable")
    rho, y = np.take_along_axis(rho, order, 1), np.take_along_axis(y, order, 1)
    weighted = y * np.minimum(np.exp(-3 * (1 - y / top)), 1.0)
    area: Array = start[:, 0] + (np.diff(rho, axis=1) * (weighted[:, 1:] + weighted[:, :-1]) / 2).sum(1)
    return area


def gap_closed(best_headless: Array, ours: Array, ceiling: Array) -> Array:
    """(rounds of the best headless arm − ours) / (rounds of the best headless arm − the ceiling's); NaN where 0."""
    gap = best_headless - ceiling
    return np.divide(best_headless - ours, gap, out=np.full_like(gap, np.nan), where=gap != 0)


def ratio_of_means(weights: Array, numerator: Array, denominator: Array) -> Array:
    """Σ w a / Σ w b in every resample [R]: never a mean of ratios. NaN where the denominator is 0."""
    below = weights @ denominator
    return np.divide(weights @ numerator, below, out=np.full_like(below, np.nan), where=below != 0)


@dataclass(frozen=True)
class Calibration:
    """How an arm keeps the bound of its dial, over commits made because the rule accepted them.

    Attributes:
        bound: the promised share b of wrong commits.
        wrong: share of wrong ones among the unforced commits made from states with no wrong token yet.
        unforced: share of all commits that the rule accepted; the others are forced or exploration.
        kept: wrong <= 1.25 b, its upper bound <= 2 b.
    """

    bound: float
    wrong: Estimate
    unforced: Estimate
    kept: bool


def calibration(
    weights: Array, *, bound: float, wrong: Array, clean: Array, unforced: Array, commits: Array
) -> Calibration | None:
    """Compare the share of wrong commits with the bound that the dial promises.

    The upper limit is never under 3 / (clean commits), the 95 % limit when no error was seen.

    Args:
        weights: [R, n] over prompts, so that the interval is clustered by prompt.
        bound: the promised share.
        wrong, clean: [n] wrong ones among the unforced commits from states without a wrong token, and all of those.
        unforced, commits: [n] commits that the rule accepted, and all.

    Returns:
        None where there was no such commit.
    """
    share = interval(ratio_of_means(weights, wrong, clean))
    accepted = interval(ratio_of_means(weights, unforced, commits))
    if share is None or accepted is None:
        return None
    share = Estimate(share.estimate, share.low, max(share.high, min(1.0, 3 / float(clean.sum()))))
    return Calibration(bound, share, accepted, share.estimate <= 1.25 * bound and share.high <= 2 * bound)
