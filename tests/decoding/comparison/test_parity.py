"""Parity: the operating point of an arm, rivals at its settings, and what their lines say."""

from __future__ import annotations

import numpy as np
import pytest

from decoding.comparison.arms import LEARNED, RANDOM, Arm
from decoding.comparison.compare import compare
from decoding.comparison.curves import resample
from decoding.comparison.parity import Point, at_point, lines, nearly_best, operating_point
from decoding.comparison.results import Pair
from decoding.comparison.table import table
from decoding.features import NAMES
from models.heads.scoring_head import HeadConfig, ScoringHead
from tests.decoding.comparison.small_comparison import (
    ETE_SETTINGS,
    SEQUENTIAL,
    problems,
    starts_with_zero,
)
from tests.decoding.comparison.toys import toy


def pair(rounds: float, spread: float = 0.01, accuracy: float = 0.0, forwards: float = 0.4) -> Pair:
    noise = np.concatenate([[0.0], np.linspace(-spread, spread, 200)])
    return Pair(rounds + noise, forwards + 0 * noise, accuracy + noise)


def test_the_operating_point_saves_rounds_by_its_interval_at_nearly_the_best_accuracy() -> None:
    touching, saving, better = pair(0.995), pair(0.9), pair(0.8)
    assert operating_point([Point({"p": 0}, touching, 0.9)]) is None
    points = [Point({"p": 0}, touching, 0.99), Point({"p": 1}, saving, 0.9), Point({"p": 2}, better, 0.86)]
    assert operating_point(points).settings == {"p": 2}
    assert operating_point([*points[:2], Point({"p": 2}, better, 0.84)]).settings == {"p": 1}


def test_parity_lines_by_hand() -> None:
    # half of the rounds explored with k = 4: identity 1 / (1 + .5 * 3) = .4
    explored, rounds = np.full(201, 3.0), np.full(201, 6.0)

    def kept(**changes):
        return lines(pair(**{"rounds": 1.03, **changes}), explored=explored, rounds=rounds, branches=4)["kept"]

    assert kept() == {"accuracy": True, "rounds": True, "sequence_forwards": True, "all": True}
    assert kept(rounds=1.031)["rounds"] is False
    assert kept(accuracy=-0.011)["accuracy"] is False  # the lower limit counts, not the estimate
    assert kept(forwards=0.411)["sequence_forwards"] is True
    assert kept(forwards=0.413)["sequence_forwards"] is False
    assert kept(forwards=0.387)["all"] is False


def test_a_gated_arm_has_no_identity_to_keep() -> None:
    about = {"explored": np.full(201, 3.0), "rounds": np.full(201, 6.0), "branches": 4, "gated": True}
    row = lines(pair(rounds=1.03, forwards=0.8), **about)
    assert row["kept"] == {"accuracy": True, "rounds": True, "sequence_forwards": None, "all": True}
    assert row["reason"].startswith("a gated arm")
    assert lines(pair(rounds=1.04), **about)["kept"]["all"] is False
    assert "reason" not in lines(pair(rounds=1.03), **{**about, "gated": False})


def test_the_cheapest_point_is_taken_of_those_as_accurate_as_the_best() -> None:
    def chosen(*points: tuple[float, float], n: int = 1000, lucky: bool = False) -> int:
        tables = [
            {
                "right": np.roll(np.arange(n) < right * n, i * n // 2 * lucky).astype(float),
                "rounds": np.full(n, 5.0),
                "sequence_forwards": np.full(n, forwards),
            }
            for i, (right, forwards) in enumerate(points)
        ]
        return nearly_best(resample(n, seed=0), tables)

    assert chosen((0.9, 5.0), (0.92, 9.0)) == 1  # what a gate buys is worth what it costs
    assert chosen((0.9, 5.0), (0.9, 9.0)) == 0  # it buys nothing
    assert chosen((0.9, 5.0), (0.9, 5.0), (0.901, 5.0)) == 2
    assert (
        chosen((0.9, 5.0), (0.909, 9.0)) == 1
    )  # under a point, on the same prompts and nine more: more by the interval
    assert chosen((0.9, 5.0), (0.909, 9.0), lucky=True) == 0  # under a point, and on other prompts
    assert chosen((0.9, 5.0), (0.911, 9.0), lucky=True) == 1


def test_a_rival_has_every_setting_of_the_operating_point_that_its_policy_has() -> None:
    point = {"gamma": 0.7, "alpha": 8.0, "eq7_over": "masks", "eq7_threshold": 0.8, "branches": 2}
    learned = at_point(Arm(LEARNED, "learned", LEARNED, settings={"gate": 1.0}, tune={"branches": [2, 4]}), point)
    assert learned.settings == {"gate": 1.0, **{name: point[name] for name in list(point)[:4]}}
    assert at_point(Arm(RANDOM, "control", RANDOM), point).settings == {"gamma": 0.7, "branches": 2}


def test_a_parity_study_runs_all_controls_at_the_operating_point() -> None:
    fixed = {**ETE_SETTINGS, "alpha": 0.5, "threshold": 0.9}
    del fixed["gamma"]
    beam = Arm("ete", "headless", "ete", settings=fixed, tune={"gamma": [0.0, 0.6]})
    control = Arm(RANDOM, "control", "random-parity")
    found = compare(toy(), [beam, control], problems(), starts_with_zero, parity=5, batch_size=4, progress=False)
    (row,) = found.parity
    assert len(row["points"]) == 2
    assert row["operating_point"]["gamma"] == 0.6
    assert {r["arm"] for r in found.results} == {"ete", "ete-untargeted", RANDOM}
    assert {r["split"] for r in found.results} == {"test"}
    assert row["points"][0]["rounds_ratio"]["estimate"] in (1, pytest.approx(2 / 3))
    assert row[RANDOM]["identity"]["estimate"] == pytest.approx(1 / (1 + 0.5 * 3))  # one round of two explored
    assert row[RANDOM]["kept"] == {"accuracy": True, "rounds": False, "sequence_forwards": False, "all": False}
    assert LEARNED not in row
    assert "random-parity" in table(found)


def test_without_a_checker_a_parity_study_holds_texts_against_those_of_the_reference() -> None:
    """The checker of such a task says False of every text."""
    fixed = {**ETE_SETTINGS, "alpha": 0.5, "threshold": 0.9}
    arms = [Arm("ete", "headless", "ete", settings=fixed), Arm(RANDOM, "control", RANDOM)]
    about = (problems(checked=False), lambda prompt, text: False)
    found = compare(toy(), [SEQUENTIAL, *arms], *about, parity=1, progress=False)
    assert [row["accuracy"]["estimate"] for row in found.results] == [1, 1, 1]
    assert found.parity[0]["points"][0]["accuracy"] == 1
    assert [row["finding"] for row in found.verdicts] == ["no checker"]
    with pytest.raises(ValueError, match=r"^arms must include the reference sequential, got ete, random-parity$"):
        compare(toy(), arms, *about, parity=1, progress=False)


def test_the_own_settings_of_a_rival_are_chosen_on_dev_at_the_operating_point() -> None:
    """A wide gate runs two branches and is no better here: on dev it costs more, and is left; test is run once."""
    beam = Arm("ete", "headless", "ete", settings={**ETE_SETTINGS, "alpha": 0.5, "threshold": 0.9})
    gated = Arm("learned-parity-gate", "learned", LEARNED, tune={"gate": [0.0, 1e9]})
    plain = Arm(LEARNED, "learned", LEARNED, settings={"gate": 1e9})
    denoiser = toy()
    denoiser.__dict__["head"] = ScoringHead(HeadConfig("linear", NAMES))
    arms = [beam, gated, plain, Arm(RANDOM, "control", RANDOM)]
    found = compare(denoiser, arms, problems(), starts_with_zero, parity=5, batch_size=4, progress=False)
    rows = {row["arm"]: row for row in found.results}
    assert rows["learned-parity-gate"]["settings"]["gate"] == 0.0
    assert rows[LEARNED]["settings"]["gate"] == 1e9  # its own settings stay
    assert rows[LEARNED]["settings"]["alpha"] == 0.5
    kept = {
        name: found.parity[0][name]["kept"]["sequence_forwards"] for name in (LEARNED, "learned-parity-gate", RANDOM)
    }
    assert kept == {LEARNED: None, "learned-parity-gate": False, RANDOM: False}
    forwards = {name: row["sequence_forwards"]["estimate"] for name, row in rows.items()}
    assert (forwards["learned-parity-gate"], forwards[LEARNED]) == pytest.approx((3, 5))  # two rounds of two branches
    assert {row["split"] for row in found.results} == {"test"}
    assert {"learned-parity-gate", LEARNED, RANDOM} <= found.parity[0].keys()
    assert sum(pair["b"] == RANDOM for pair in found.pairs) == 2


def test_a_task_without_operating_point_is_no_parity_task() -> None:
    beam = Arm("ete", "headless", "ete", settings={"threshold": 0.9}, tune={"gamma": [0.0]})
    found = compare(toy(), [beam], problems(), starts_with_zero, parity=1, progress=False)
    assert found.parity[0]["operating_point"] is None
    assert found.results == []
    assert "groups is no parity task" in table(found)
