"""Where the arms of one task stand: the rows of `comparison.json` from the figures of every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoding.comparison import curves
from decoding.comparison.arms import REFERENCE, Arm, Cell
from decoding.comparison.curves import Array, AtReference, Curve
from decoding.comparison.problems import Split
from decoding.comparison.risk_control import RiskControl, choose_calibrated
from decoding.comparison.runner import Runner
from decoding.names import DIALS

Row = dict[str, Any]

RIVAL = "ete"
CEILING = "practical-ceiling"  # a full trainable copy of the base as the head
MEANS = ("rounds", "sequence_forwards", "token_positions", "new_tokens", "looks", "drafts", "drafts_true")


@dataclass(frozen=True)
class Measured:
    """An arm with its curves on both splits, and where it stands at reference accuracy."""

    arm: Arm
    cells: tuple[Cell, ...]
    dev: Curve
    test: Curve
    at: AtReference

    @property
    def shown(self) -> int:
        """The setting to show: the one chosen on dev, or where none qualifies the most accurate there."""
        if self.at.dial is not None:
            return self.at.dial
        return int(np.lexsort((self.dev.rounds[0], -self.dev.accuracy[0]))[0])

    @property
    def cell(self) -> Cell:
        """The cell to show."""
        return self.cells[self.shown]

    @property
    def rounds_on_dev(self) -> float:
        """Rounds on dev at the chosen setting, infinite where none qualifies."""
        return float("inf") if self.at.dial is None else float(self.dev.rounds[0, self.at.dial])


def measure_arms(runner: Runner, arms: Sequence[Arm], control: RiskControl | None = None) -> list[Measured]:
    """Curves of every arm and where each stands at reference accuracy, its dial chosen on dev by estimate or by risk control."""
    dev_weights, test_weights = runner.weights("dev"), runner.weights("test")
    dev = {arm.name: runner.curve(arm, "dev", dev_weights) for arm in arms}
    test = {arm.name: runner.curve(arm, "test", test_weights) for arm in arms}
    reference = (dev[REFERENCE].accuracy[:, 0], test[REFERENCE].accuracy[:, 0])
    return [
        Measured(
            arm=arm,
            cells=runner.cells_of(arm),
            dev=dev[arm.name],
            test=test[arm.name],
            at=curves.at_reference(
                dev[arm.name],
                reference[0],
                test[arm.name],
                reference[1],
                chosen=None if control is None else calibrated_dial(runner, arm, dev[arm.name], control),
            ),
        )
        for arm in arms
    ]


def calibrated_dial(runner: Runner, arm: Arm, dev: Curve, control: RiskControl) -> NDArray[np.int64]:
    """Index [R] of the setting that risk control chooses on the dev split in every resample, -1 where none holds.

    Args:
        runner: in which the arm and the reference have run.
        arm: its values from the careful end, or of a dial among DIALS in any order.
        dev: the arm's curve.
        control: what is promised, of the loss `flip`.
    """
    (reference,) = Arm(REFERENCE, "headless", REFERENCE).cells
    careful = runner.ledger.table("dev", reference)["right"]
    flips = np.stack([careful > runner.ledger.table("dev", cell)["right"] for cell in runner.cells_of(arm)]).astype(
        float
    )
    values = DIALS[arm.dial].careful_first(arm.values) if arm.dial in DIALS else arm.values
    order = [arm.values.index(value) for value in values] or [0]
    return choose_calibrated(runner.weights("dev"), flips, dev.rounds, order, control)


def named(measured: Sequence[Measured], name: str) -> Measured | None:
    """The arm of that name, if it ran."""
    return next((item for item in measured if item.arm.name == name), None)


def best_headless(measured: Sequence[Measured]) -> Measured | None:
    """The headless arm, the reference apart, with the fewest rounds at reference on the dev split."""
    rivals = [m for m in measured if m.arm.kind == "headless" and m.arm.name != REFERENCE and m.at.dial is not None]
    return min(rivals, key=lambda item: item.rounds_on_dev, default=None)


def estimate(draws: Array) -> Row | None:
    """A figure with its interval."""
    interval = curves.interval(draws)
    return None if interval is None else asdict(interval)


def result_rows(runner: Runner, cells: Sequence[tuple[Arm, Cell]], splits: Sequence[Split]) -> list[Row]:
    """One row for each cell and split: what it cost and what it got right."""
    rows = []
    for split in splits:
        weights = runner.weights(split)
        for arm, cell in cells:
            table = runner.ledger.table(split, cell)
            row: Row = {"task": runner.problems.task, "arm": arm.name, "kind": arm.kind, "dial": cell.dial}
            row |= {"settings": dict(cell.settings), "split": split, "n": weights.shape[1]}
            row |= {"accuracy": estimate(weights @ table["right"])}
            row |= {name: estimate(weights @ table[name]) for name in MEANS}
            row |= {"bits_per_round": estimate(curves.ratio_of_means(weights, table["bits"], table["rounds"]))}
            rows.append(row | {"seconds": float(table["seconds"].mean())})
    return rows


def curve_rows(runner: Runner, measured: Sequence[Measured]) -> list[Row]:
    """One row for each arm: its standing at reference accuracy and the area under its curve, on the test split."""
    reference = named(measured, REFERENCE)
    assert reference is not None
    start = reference.test.accuracy[:, 0]
    best = np.max([m.test.accuracy.max(1) for m in measured if m.arm.kind != "ceiling"], axis=0)
    rival, ceiling = best_headless(measured), named(measured, CEILING)
    rows = []
    for item in measured:
        gap = None
        if rival is not None and ceiling is not None:
            gap = estimate(curves.gap_closed(rival.at.rounds, item.at.rounds, ceiling.at.rounds))
        test = item.test
        rows.append(
            {
                "task": runner.problems.task,
                "arm": item.arm.name,
                "kind": item.arm.kind,
                "dial_chosen": None if item.at.dial is None else item.cells[item.at.dial].dial,
                "dial_shown": item.cell.dial,
                "rounds_at_reference": estimate(item.at.rounds),
                "accuracy_difference": estimate(item.at.difference),
                "holds": item.at.holds,
                "aup": estimate(curves.aup(test.tokens / test.rounds, test.accuracy, start, best)),
                "aup_forwards": estimate(curves.aup(test.tokens / test.forwards, test.accuracy, start, best)),
                "gap_closed": gap,
                "null_share": item.at.null_share,
            }
        )
    return rows


@dataclass(frozen=True)
class Pair:
    """Two cells on the same prompts, every field [R]."""

    rounds_ratio: Array
    sequence_forwards_ratio: Array
    accuracy_difference: Array

    @staticmethod
    def of(runner: Runner, split: Split, a: Cell, b: Cell) -> Pair:
        """Two cells that have run, a against b.

        Args:
            runner: of the task.
            split: dev or test.
            a, b: the cells, both run on that split.
        """
        return Pair.between(runner.weights(split), runner.ledger.table(split, a), runner.ledger.table(split, b))

    @staticmethod
    def between(weights: Array, a: Mapping[str, Array], b: Mapping[str, Array]) -> Pair:
        """Ratios of means and the difference of accuracies, from the figures of every prompt."""
        return Pair(
            curves.ratio_of_means(weights, a["rounds"], b["rounds"]),
            curves.ratio_of_means(weights, a["sequence_forwards"], b["sequence_forwards"]),
            weights @ (a["right"] - b["right"]),
        )

    def row(self) -> Row:
        """The three estimates."""
        names = ("rounds_ratio", "sequence_forwards_ratio", "accuracy_difference")
        return {name: estimate(getattr(self, name)) for name in names}


def pair_row(runner: Runner, split: Split, a: Cell, b: Cell) -> Row:
    """A pair of cells as a row.

    Args:
        runner: of the task.
        split: dev or test.
        a, b: the cells, both run on that split.
    """
    who = {"task": runner.problems.task, "a": a.arm, "b": b.arm, "dial_a": a.dial, "dial_b": b.dial}
    return who | Pair.of(runner, split, a, b).row()


def pair_rows(runner: Runner, measured: Sequence[Measured]) -> list[Row]:
    """Every arm against beam ETE and against the best headless arm, each at the setting chosen on dev, on the test split."""
    rivals = {item.arm.name: item for item in (named(measured, RIVAL), best_headless(measured)) if item is not None}
    return [
        pair_row(runner, "test", a.cell, b.cell) for b in rivals.values() for a in measured if a.arm.name != b.arm.name
    ]


def calibration_rows(runner: Runner, measured: Sequence[Measured]) -> list[Row]:
    """How each dial that promises a share of wrong commits keeps it, on the test split; only where answers are unique."""
    weights = runner.weights("test")
    rows = []
    for item in measured:
        for cell in item.cells:
            bound, table = item.arm.bound(cell.dial), runner.ledger.table("test", cell)
            if bound is None or (table["clean"] < 0).any():
                continue
            bins = curves.calibration(
                weights,
                bound=bound,
                wrong=table["wrong"],
                clean=table["clean"],
                unforced=table["unforced"],
                commits=table["commits"],
            )
            if bins is not None:
                who: Row = {
                    "task": runner.problems.task,
                    "arm": item.arm.name,
                    "kind": item.arm.kind,
                    "dial": cell.dial,
                }
                rows.append(who | {"n": weights.shape[1]} | asdict(bins))
    return rows
