"""Parity with beam ETE: does a score in the place of the look-ahead find the same cascades without its branches?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from decoding.comparison import curves
from decoding.comparison.arms import BEAM, LEARNED, RANDOM, Arm, Cell, check_parity
from decoding.comparison.curves import Array
from decoding.comparison.results import Pair, Row, estimate, pair_row, result_rows
from decoding.comparison.runner import Runner
from decoding.policies.ete import ExplorePolicy, RandomParity
from decoding.policies.learned_ete import LearnedParity

RIVALS: Mapping[str, type[ExplorePolicy]] = {LEARNED: LearnedParity, RANDOM: RandomParity}
GATED = "a gated arm runs two branches where the head is unsure: the identity is that of one canvas a round"
ACCURACY_LINE = -0.02  # lower limit of the accuracy difference
ROUNDS_LINE = 1.03
FORWARDS_LINE = 0.03  # distance from the identity
NEAR_BEST = 0.05  # an operating point is at most this much less accurate than the best one
NEAR_TUNED = 0.01  # a rival's own settings are at most this much less accurate on dev than its best ones


@dataclass(frozen=True)
class Point:
    """Beam ETE at one point of its settings, with targeted exploration and without, on the dev split."""

    settings: dict[str, Any]
    pair: Pair
    accuracy: float

    @property
    def rounds(self) -> curves.Estimate:
        """Rounds with targeted exploration over rounds without it."""
        interval = curves.interval(self.pair.rounds_ratio)
        assert interval is not None
        return interval


def untargeted(arm: Arm) -> Arm:
    """The same exploration without branches: implicit exploration only."""
    return replace(arm, name=f"{arm.name}-untargeted", settings={**arm.settings, "targeted": False})


def search(runner: Runner, beam: Arm, count: int) -> list[Point]:
    """Beam ETE with and without targeted exploration at `count` random points of its tuning space, on the dev split."""
    points = beam.draws(count, seed=runner.seed)
    runner.run([arm for point in points for arm in (point, untargeted(point))], "dev")
    searched = []
    for point in points:
        with_, without = runner.cells_of(point)[0], runner.cells_of(untargeted(point))[0]
        accuracy = float(runner.ledger.table("dev", with_)["right"].mean())
        searched.append(Point(dict(point.settings), Pair.of(runner, "dev", with_, without), accuracy))
    return searched


def operating_point(points: Sequence[Point]) -> Point | None:
    """Where targeted exploration saves most rounds by its interval, among the points nearly as accurate as the best of them.

    A point counts only if the upper limit of the rounds ratio is under 1; None if there is no such point.
    """
    saving = [point for point in points if point.rounds.high < 1]
    if not saving:
        return None
    best = max(point.accuracy for point in saving)
    near = [point for point in saving if point.accuracy >= best - NEAR_BEST - curves.SLACK]
    return min(near, key=lambda point: point.rounds.high)


def lines(pair: Pair, *, explored: Array, rounds: Array, branches: int, gated: bool = False) -> Row:
    """The three lines that parity must keep, learned against beam.

    Sequence forwards of the head over those of the beam are 1 / (1 + ρ(k − 1)) where the rounds are equal; ρ is the share
    of the beam's rounds that explored. A gated arm has a line less: its third is None, and `reason` says why.

    Args:
        pair: learned against beam.
        explored, rounds: [R] mean rounds of the beam that ran branches, and all its rounds.
        branches: k.
        gated: whether the arm runs branches of its own.
    """
    identity = 1 / (1 + explored / rounds * (branches - 1))
    accuracy = curves.interval(pair.accuracy_difference)
    assert accuracy is not None
    off = float(pair.sequence_forwards_ratio[0] / identity[0]) - 1
    kept = {
        "accuracy": accuracy.low >= ACCURACY_LINE - curves.SLACK,
        "rounds": float(pair.rounds_ratio[0]) <= ROUNDS_LINE,
        "sequence_forwards": None if gated else abs(off) <= FORWARDS_LINE,
    }
    return {
        **pair.row(),
        "explored_share": estimate(explored / rounds),
        "identity": estimate(identity),
        "kept": {**kept, "all": False not in kept.values()},
        **({"reason": GATED} if gated else {}),
    }


def tuned(runner: Runner, arm: Arm, count: int) -> Arm:
    """The arm at the nearly best point of its own tuning space on the dev split; one without such a space is as it was."""
    if not arm.tune:
        return arm
    points = arm.draws(count, seed=runner.seed)
    runner.run(points, "dev")
    tables = [runner.ledger.table("dev", runner.cells_of(point)[0]) for point in points]
    return points[nearly_best(runner.weights("dev"), tables)]


def nearly_best(weights: Array, tables: Sequence[Mapping[str, Array]]) -> int:
    """Of the points that are as accurate as the most accurate one, that with the fewest sequence forwards.

    As accurate: at most NEAR_TUNED less, and not less by the interval of the paired difference either. So what a gate costs
    counts against it only where it buys nothing.

    Args:
        weights: [R, n] over prompts.
        tables: the columns [n] of each point.
    """
    accuracy = [float(table["right"].mean()) for table in tables]
    best = max(range(len(tables)), key=accuracy.__getitem__)

    def near(i: int) -> bool:
        lost = curves.interval(Pair.between(weights, tables[i], tables[best]).accuracy_difference)
        assert lost is not None
        return accuracy[i] >= accuracy[best] - NEAR_TUNED - curves.SLACK and lost.high >= -curves.SLACK

    equals = [i for i in range(len(tables)) if near(i)]
    return min(equals, key=lambda i: (float(tables[i]["sequence_forwards"].mean()), -accuracy[i]))


def at_point(arm: Arm, point: Mapping[str, Any]) -> Arm:
    """The arm with every setting of the operating point that its policy has, but those that it tunes itself."""
    has = {field.name for field in fields(RIVALS[arm.policy])} - arm.tune.keys()
    return replace(arm, settings={**arm.settings, **{name: value for name, value in point.items() if name in has}})


@dataclass(frozen=True)
class ParityStudy:
    """The rows that a parity study adds to a comparison."""

    results: list[Row]
    pairs: list[Row]
    parity: Row


def parity_study(runner: Runner, arms: Sequence[Arm], count: int) -> ParityStudy:
    """Search the operating point on the dev split, then measure parity there on the test split.

    Args:
        runner: the task.
        arms: beam ETE with a tuning space, and those of learned-parity and random-parity that can run;
            what these tune is chosen on the dev split at the operating point.
        count: random points searched.

    Raises:
        ValueError: if beam ETE is not among the arms, or one of them has a dial.
    """
    check_parity(arms)
    targeted = next(arm for arm in arms if arm.name == BEAM)
    points = search(runner, targeted, count)
    tried = [
        {"settings": p.settings, "accuracy": p.accuracy, "rounds_ratio": estimate(p.pair.rounds_ratio)} for p in points
    ]
    point = operating_point(points)
    row: Row = {
        "task": runner.problems.task,
        "points": tried,
        "operating_point": None if point is None else point.settings,
    }
    if point is None:
        return ParityStudy([], [], row)
    beam = replace(targeted, settings=point.settings, tune={})
    rivals = [tuned(runner, at_point(arm, point.settings), count) for arm in arms if arm.policy in RIVALS]
    entrants = [beam, untargeted(beam), *rivals]
    runner.run(entrants, "test")
    cells = {arm.name: runner.cells_of(arm)[0] for arm in entrants}
    pairs = [pair_row(runner, "test", cell, cells[BEAM]) for name, cell in cells.items() if name != BEAM]
    if RANDOM in cells:
        learned = [cell for cell in cells.values() if cell.policy == LEARNED]
        pairs += [pair_row(runner, "test", cell, cells[RANDOM]) for cell in learned]
    results = result_rows(runner, [(arm, cells[arm.name]) for arm in entrants], ["test"])
    return ParityStudy(results, pairs, row | compare_with_beam(runner, cells))


def compare_with_beam(runner: Runner, cells: dict[str, Cell]) -> Row:
    """The lines of every score against beam ETE, and whether the head needs fewer rounds than a random pick."""
    weights, table = runner.weights("test"), runner.ledger.table("test", cells[BEAM])
    explored, rounds = weights @ table["explored"], weights @ table["rounds"]
    branches = int(cells[BEAM].settings.get("branches", ExplorePolicy.branches))
    row: Row = {
        name: lines(
            Pair.of(runner, "test", cell, cells[BEAM]),
            explored=explored,
            rounds=rounds,
            branches=branches,
            gated=cell.settings.get("gate", LearnedParity.gate) > 0,
        )
        for name, cell in cells.items()
        if cell.policy in RIVALS
    }
    if LEARNED in row and RANDOM in row:
        ratio = curves.interval(Pair.of(runner, "test", cells[LEARNED], cells[RANDOM]).rounds_ratio)
        assert ratio is not None
        row["beats_random"] = ratio.high < 1
    return row
