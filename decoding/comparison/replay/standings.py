"""Where arms stand in a table of outcomes: arm and dial chosen on the first prompts, measured on those after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoding.comparison import curves
from decoding.comparison.arms import REFERENCE
from decoding.comparison.curves import Array, AtReference, Curve
from decoding.comparison.replay.table import MISSING, OutcomeTable

Kind = str
CHECKED = "verified"  # the policy of checked drafts
FIELDS = ("right", "rounds", "sequence_forwards")


@dataclass(frozen=True)
class Splits:
    """The prompts of a table in two parts.

    Attributes:
        table: of one task.
        dev: how many prompts choose, the first ones.
        test: how many are measured, those behind them.
        seed: of the resamples.
    """

    table: OutcomeTable
    dev: int
    test: int
    seed: int = 0

    def curve(self, rows: Sequence[int], *, test: bool) -> Curve:
        """The curve of some cells on one part.

        Raises:
            ValueError: where one of them did not run on all of it.
        """
        part = slice(self.dev, self.dev + self.test) if test else slice(0, self.dev)
        right, rounds, forwards = (self.table.columns[name][list(rows), part].astype(float) for name in FIELDS)
        if right.shape[1] != (self.test if test else self.dev) or (right < 0).any():
            arm = self.table.cells[rows[0]].arm
            raise ValueError(f"outcomes must hold {arm} on the first {self.dev + self.test} prompts, got fewer")
        return Curve.of(self.weights(test=test), right=right, rounds=rounds, forwards=forwards, tokens=rounds)

    def holds(self, arm: str) -> bool:
        """Whether an arm ran on all prompts of both parts."""
        right = self.table.columns["right"][self.table.rows(arm), : self.dev + self.test]
        return right.shape[1] == self.dev + self.test and bool((right >= 0).all())

    def weights(self, *, test: bool) -> Array:
        """Resamples of the prompts of one part."""
        return curves.resample(self.test if test else self.dev, seed=2 * self.seed + test)


@dataclass(frozen=True)
class Standing:
    """An arm at reference accuracy.

    Attributes:
        arm: name.
        dial: the setting chosen on dev, None where none qualifies.
        on_dev: rounds there, infinite without a setting.
        at: on the test prompts at the setting chosen on dev, anew in every resample.
        forwards: sequence forwards [R] there.
        read_off: [R] rounds read off the test curve, see `read_off`.
    """

    arm: str
    dial: float | None
    on_dev: float
    at: AtReference
    forwards: Array
    read_off: Array


def read_off(curve: Curve, target: Array) -> Array:
    """Rounds [R] at which the isotonic curve reaches an accuracy, by linear interpolation; NaN where it never does.

    Args:
        curve: [R, S].
        target: [R] accuracy.
    """
    order = np.argsort(curve.rounds, axis=1, kind="stable")
    rounds = np.take_along_axis(curve.rounds, order, 1)
    accuracy = np.take_along_axis(curves.isotonic(curve.rounds, curve.accuracy), order, 1)
    reached = accuracy >= target[:, None] - curves.SLACK
    first = reached.argmax(1)
    lines, before = np.arange(len(first)), np.maximum(first - 1, 0)
    rise = accuracy[lines, first] - accuracy[lines, before]
    missing = accuracy[lines, first] - target
    back = np.divide(missing, rise, out=np.zeros_like(rise), where=rise > 0).clip(0, 1)
    found: Array = rounds[lines, first] - back * (rounds[lines, first] - rounds[lines, before])
    return np.where(reached.any(1), found, np.nan)


def standing(splits: Splits, arm: str, *, tolerance: float) -> Standing:
    """Where an arm stands.

    Args:
        splits: of the task.
        arm: name.
        tolerance: how far under the reference a setting may be on dev.
    """
    rows, reference = splits.table.rows(arm), splits.table.rows(REFERENCE)
    dev, test = (splits.curve(rows, test=part) for part in (False, True))
    careful = [splits.curve(reference, test=part).accuracy[:, 0] for part in (False, True)]
    chosen = curves.choose_dial(dev, careful[0], tolerance=tolerance)
    at = curves.at_reference(dev, careful[0], test, careful[1], tolerance=tolerance, chosen=chosen)
    exists = at.dial is not None
    return Standing(
        arm=arm,
        dial=splits.table.cells[rows[at.dial]].value if at.dial is not None else None,
        on_dev=float(dev.rounds[0, at.dial]) if exists else float("inf"),
        at=at,
        forwards=curves.pick(test.forwards, chosen),
        read_off=read_off(test, careful[1] - tolerance),
    )


@dataclass(frozen=True)
class Contest:
    """Checked drafts against the headless rules of one task, both sides chosen on dev.

    Attributes:
        task: name.
        tolerance: how far under the reference.
        dev, test: prompts.
        reference: accuracy of one token a round on the test prompts.
        rival, checked: name, dial, rounds, forwards, accuracy difference and whether it still holds on test, of the arm of either
            side that needs the fewest rounds on dev.
        ratio: rounds of `checked` over those of `rival`, with interval.
        read_off: the same ratio read off the test curves, the best arm of either side in every resample.
        fewer_than_all: whether `checked` needs fewer rounds on test than every headless arm that has a setting.
        every: rows of all arms.
    """

    task: str
    tolerance: float
    dev: int
    test: int
    reference: float
    rival: dict[str, Any] | None
    checked: dict[str, Any] | None
    ratio: dict[str, float] | None
    read_off: dict[str, float] | None
    fewer_than_all: bool
    every: tuple[dict[str, Any], ...]

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def contest(splits: Splits, *, tolerance: float) -> Contest:
    """Choose the best arm of either side on dev and compare them on test.

    Args:
        splits: of the task.
        tolerance: how far under the reference a setting may be on dev.
    """
    table = splits.table
    sides: dict[str, list[Standing]] = {"rival": [], "checked": [], "other": []}
    for arm in table.arms:
        cell = table.cells[table.rows(arm)[0]]
        side = "checked" if cell.policy == CHECKED else "rival" if cell.kind == "headless" else "other"
        if arm != REFERENCE and splits.holds(arm):
            sides[side].append(standing(splits, arm, tolerance=tolerance))
    rival, checked = (_fewest(sides[side]) for side in ("rival", "checked"))
    both = rival is not None and checked is not None
    holding = [one for one in sides["rival"] if one.dial is not None]
    return Contest(
        task=table.task,
        tolerance=tolerance,
        dev=splits.dev,
        test=splits.test,
        reference=float(splits.curve(table.rows(REFERENCE), test=True).accuracy[0, 0]),
        rival=None if rival is None else row_of(rival),
        checked=None if checked is None else row_of(checked),
        ratio=_estimate(checked.at.rounds / rival.at.rounds) if both and checked and rival else None,
        read_off=_estimate(_least(sides["checked"]) / _least(sides["rival"])),
        fewer_than_all=checked is not None and all(checked.at.rounds[0] < one.at.rounds[0] for one in holding),
        every=tuple({"side": side, **row_of(one)} for side, found in sides.items() for one in found),
    )


def row_of(one: Standing) -> dict[str, Any]:
    """An arm's standing as JSON."""
    return {
        "arm": one.arm,
        "dial": one.dial,
        "rounds": _estimate(one.at.rounds),
        "sequence_forwards": _estimate(one.forwards),
        "accuracy_difference": _estimate(one.at.difference),
        "holds": one.at.holds,
        "read_off": _estimate(one.read_off),
    }


def _fewest(found: Sequence[Standing]) -> Standing | None:
    best = min(found, key=lambda one: one.on_dev, default=None)
    return None if best is None or best.dial is None else best


def _least(found: Sequence[Standing]) -> Array:
    """The fewest rounds read off any curve, in every resample; NaN where none reaches the accuracy."""
    if not found:
        return np.full(curves.RESAMPLES + 1, np.nan)
    every = np.stack([one.read_off for one in found])
    least: NDArray[np.float64] = np.where(np.isnan(every), np.inf, every).min(0)
    return np.where(np.isinf(least), np.nan, least)


def _estimate(draws: Array) -> dict[str, float] | None:
    found = curves.interval(draws)
    return None if found is None else asdict(found)


@dataclass(frozen=True)
class SameTexts:
    """A checked arm in exact mode beside its rule at the same setting.

    Attributes:
        arm, value: the checked arm and its setting.
        equal, prompts: prompts with the rule's own text, of those whose two texts can be compared.
        rounds_ratio: rounds over those of the rule.
        most_rounds: the largest share of rounds of any prompt; at most 1 where no prompt needs more.
    """

    arm: str
    value: float
    equal: int
    prompts: int
    rounds_ratio: float
    most_rounds: float


def same_texts(table: OutcomeTable, arm: str, rule: str) -> list[SameTexts]:
    """Texts and rounds of an exact arm against its rule, at every setting that both have."""
    own = {table.cells[row].value: row for row in table.rows(rule)}
    found = []
    for row in table.rows(arm):
        value = table.cells[row].value
        pair = [row, own.get(value, row)]
        there = table.complete(pair)
        if value is None or value not in own or not len(there):
            continue
        answer, rounds = (table.columns[name][pair][:, there] for name in ("answer", "rounds"))
        ratio = rounds[0].sum() / rounds[1].sum()
        known = (answer != MISSING).all(0)
        equal = int((answer[0] == answer[1])[known].sum())
        found.append(SameTexts(arm, value, equal, int(known.sum()), float(ratio), float((rounds[0] / rounds[1]).max())))
    return found
