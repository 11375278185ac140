"""Whether calibrated dials keep their promise: calibrations replayed from a table of outcomes, judged on all other prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from decoding.comparison.arms import REFERENCE
from decoding.comparison.replay.table import OutcomeTable
from decoding.comparison.risk_control import Loss, Outcomes, RiskControl, betting_bound

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Replays:
    """The same prompts divided again and again into calibration prompts and others.

    Attributes:
        values: [S] settings of the dial from the careful end.
        losses: [S, n] of every prompt.
        rounds: [S, n].
        chosen_from: [R, n] whether a prompt is a calibration prompt of a replay.
        bounds: [R, S] upper bounds from the calibration prompts.
        confidence: of the bounds.
    """

    values: tuple[float, ...]
    losses: Array
    rounds: Array
    chosen_from: NDArray[np.bool_]
    bounds: Array
    confidence: float

    @cached_property
    def true_loss(self) -> Array:
        """[R, S] mean loss on the prompts that a replay did not calibrate on."""
        return _means(~self.chosen_from, self.losses)

    @cached_property
    def seen_rounds(self) -> Array:
        """[R, S] mean rounds on the calibration prompts."""
        return _means(self.chosen_from, self.rounds)

    def choose(self, max_loss: float) -> NDArray[np.int64]:
        """Index [R] of the setting that `calibrate.py` would choose, -1 where none holds."""
        holds = np.logical_and.accumulate(self.bounds <= max_loss, axis=1)
        chosen: NDArray[np.int64] = np.where(holds, self.seen_rounds, np.inf).argmin(1)
        chosen[~holds.any(1)] = -1
        return chosen


@dataclass(frozen=True)
class Acceptance:
    """How a promise was kept over the replays.

    Attributes:
        task, arm, loss, max_loss, confidence: the promise.
        prompts: of a calibration.
        others: prompts that its true loss is measured on.
        replays: how many.
        none: share of the replays in which no setting holds; nothing is promised there.
        exceeded: share of all replays whose true loss exceeds the promise.
        standard_error: of a share of 1 - confidence over so many replays.
        kept: exceeded <= 1 - confidence + 2 standard errors.
        true_loss, true_loss_high: mean and 95th percentile over the replays that chose, None where none did.
        best: the setting with the fewest rounds whose mean loss over the whole table is within the promise; None without one.
        rounds_ratio: mean rounds of the setting chosen over those of the best; over the replays that chose.
    """

    task: str
    arm: str
    loss: Loss
    max_loss: float
    confidence: float
    prompts: int
    others: int
    replays: int
    none: float
    exceeded: float
    standard_error: float
    kept: bool
    true_loss: float | None
    true_loss_high: float | None
    best: float | None
    rounds_ratio: float | None

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def replay(
    table: OutcomeTable, arm: str, control: RiskControl, *, prompts: int, replays: int = 200, seed: int = 0
) -> Replays:
    """Calibrate an arm anew on random prompts of the table, as `calibrate.py` would.

    Args:
        table: of one task, with `sequential` in it.
        arm: its name.
        control: loss and confidence; any promise can be asked of the result.
        prompts: of a calibration, drawn without replacement.
        replays: how many calibrations.
        seed: of the draws.

    Raises:
        ValueError: for a table of no more prompts than a calibration takes.
    """
    rows, (reference,) = table.rows(arm), table.rows(REFERENCE)
    there = table.complete([*rows, reference])
    if len(there) <= prompts:
        raise ValueError(f"prompts must be fewer than the {len(there)} that {arm} ran on, got {prompts}")
    careful = _outcomes(table, reference, there)
    losses = np.stack([control.losses(careful, _outcomes(table, row, there), checked=True) for row in rows])
    generator, chosen_from = np.random.default_rng(seed), np.zeros((replays, len(there)), bool)
    for line in chosen_from:
        line[generator.permutation(len(there))[:prompts]] = True
    return Replays(
        values=tuple(float(table.cells[row].value or 0) for row in rows),
        losses=losses,
        rounds=table.columns["rounds"][rows][:, there].astype(float),
        chosen_from=chosen_from,
        bounds=_bounds(losses, chosen_from, control, prompts),
        confidence=control.confidence,
    )


def judge(replays: Replays, table: OutcomeTable, arm: str, control: RiskControl) -> Acceptance:
    """How often the promise of `control` was broken, and how many rounds caution cost.

    Args:
        replays: of `replay`, with the loss and confidence of `control`.
        table, arm: what was replayed.
        control: the promise.
    """
    chosen = replays.choose(control.max_loss)
    chose = chosen >= 0
    lines = np.flatnonzero(chose)
    lost = replays.true_loss[lines, chosen[lines]]
    holding = replays.losses.mean(1) <= control.max_loss
    rounds = replays.rounds.mean(1)
    best = int(np.where(holding, rounds, np.inf).argmin()) if holding.any() else None
    count = len(chosen)
    error = math.sqrt(control.confidence * (1 - control.confidence) / count)
    exceeded = float((lost > control.max_loss).sum() / count)
    size = int(replays.chosen_from[0].sum())
    return Acceptance(
        task=table.task,
        arm=arm,
        loss=control.loss,
        max_loss=control.max_loss,
        confidence=control.confidence,
        prompts=size,
        others=replays.losses.shape[1] - size,
        replays=count,
        none=float(1 - chose.mean()),
        exceeded=exceeded,
        standard_error=error,
        kept=exceeded <= 1 - control.confidence + 2 * error,
        true_loss=float(lost.mean()) if len(lines) else None,
        true_loss_high=float(np.quantile(lost, 0.95)) if len(lines) else None,
        best=None if best is None else replays.values[best],
        rounds_ratio=float(rounds[chosen[lines]].mean() / rounds[best]) if len(lines) and best is not None else None,
    )


def _outcomes(table: OutcomeTable, row: int, there: NDArray[np.int64]) -> Outcomes:
    right, answer, rounds = (table.columns[name][row][there].astype(float) for name in ("right", "answer", "rounds"))
    return Outcomes(right, answer, rounds)


def _means(chosen: NDArray[np.bool_], values: Array) -> Array:
    means: Array = chosen.astype(float) @ values.T / chosen.sum(1, keepdims=True)
    return means


def _bounds(losses: Array, chosen: NDArray[np.bool_], control: RiskControl, prompts: int) -> Array:
    """Upper bounds [R, S]."""
    weights = chosen.astype(float)
    lost = np.rint(weights @ (losses > 0).T.astype(float))
    if control.loss == "flip":
        bounds = beta.ppf(control.confidence, lost + 1, np.maximum(prompts - lost, 0.5))
        return np.asarray(np.where(lost < prompts, bounds, 1.0), dtype=float)
    gained = np.rint(weights @ (losses < 0).T.astype(float))
    return np.array(
        [
            [_bound_of_counts(int(a), int(b), prompts, control.confidence) for a, b in zip(*pair, strict=True)]
            for pair in zip(lost, gained, strict=True)
        ]
    )


def _bound_of_counts(lost: int, gained: int, prompts: int, confidence: float) -> float:
    return betting_bound(np.repeat([1.0, -1.0, 0.0], [lost, gained, prompts - lost - gained]), confidence)


def acceptances(
    table: OutcomeTable,
    arms: Sequence[str],
    *,
    losses: Sequence[Loss],
    promises: Sequence[float],
    sizes: Sequence[int],
    confidence: float = 0.95,
    replays: int = 200,
    seed: int = 0,
) -> list[Acceptance]:
    """Every promise for every arm, loss and number of calibration prompts.

    Args:
        table: of one task.
        arms: names.
        losses: flip, difference.
        promises: values of max_loss.
        sizes: calibration prompts.
        confidence: of every promise.
        replays: calibrations for each.
        seed: of the draws, the same for every arm.
    """
    found = []
    for arm in arms:
        for loss in losses:
            for size in sizes:
                control = RiskControl(loss, max(promises), confidence)
                replayed = replay(table, arm, control, prompts=size, replays=replays, seed=seed)
                found += [judge(replayed, table, arm, RiskControl(loss, one, confidence)) for one in promises]
    return found
