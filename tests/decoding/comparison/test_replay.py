"""Calibrations replayed from a table of outcomes, and where arms stand in it, on outcomes whose truth is known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from decoding.comparison.curves import Curve
from decoding.comparison.replay.promises import acceptances, judge, replay
from decoding.comparison.replay.standings import Splits, contest, read_off, same_texts, standing
from decoding.comparison.replay.table import (
    ANSWER,
    COUNTED,
    MISSING,
    OutcomeTable,
    StoredCell,
    number_texts,
)
from decoding.comparison.risk_control import RiskControl

LOST = {0.99: 0.002, 0.9: 0.014, 0.5: 0.2}  # dial -> share of right answers that it loses
ROUNDS = {0.99: 10, 0.9: 8, 0.5: 2}


def table(prompts: int = 4000, *, lost=LOST, seed: int = 0) -> OutcomeTable:
    draws = np.random.default_rng(seed)
    cells, right, rounds = [StoredCell("sequential", "headless", "sequential", "", None, {})], [np.ones(prompts)], [20]
    for dial in sorted(lost):  # bold first: the table is put in order by what reads it
        cells.append(StoredCell("threshold", "headless", "threshold", "threshold", dial, {"threshold": dial}))
        right.append(draws.random(prompts) >= lost[dial])
        rounds.append(ROUNDS[dial])
    wide = np.repeat(np.array(rounds)[:, None], prompts, 1)
    columns = {name: np.zeros_like(wide, dtype=np.int32) for name in (*COUNTED, ANSWER)}
    columns |= {"right": np.array(right).astype(np.int32), "rounds": wide.astype(np.int32)}
    columns["sequence_forwards"] = columns["rounds"]
    return OutcomeTable("toy", tuple(cells), columns, {"prompts": "abc"})


def test_a_table_is_read_back_whole(tmp_path):
    whole = table(50)
    whole.columns["rounds"][1, 3] = 40_000
    whole.columns["right"][2, 5] = MISSING
    whole.save(tmp_path / "toy.npz")
    found = OutcomeTable.load(tmp_path / "toy.npz")
    assert (found.task, found.cells, found.about) == (whole.task, whole.cells, whole.about)
    assert all(np.array_equal(found.columns[name], values) for name, values in whole.columns.items())
    assert found.complete([2]).tolist() == [one for one in range(50) if one != 5]
    (tmp_path / "other.npz").write_text("{}")
    with pytest.raises(ValueError, match="outcomes must be a file of python -m train"):
        OutcomeTable.load(tmp_path / "other.npz")


def test_rows_begin_at_the_careful_end():
    assert [table(5).cells[row].value for row in table(5).rows("threshold")] == [0.99, 0.9, 0.5]
    with pytest.raises(ValueError, match="arm must be among sequential, threshold, got 'factor'"):
        table(5).rows("factor")


def test_tables_of_the_same_prompts_are_joined():
    one, other = table(6), table(6, seed=1)
    one.columns["right"][3, 4:] = MISSING
    other = replace(other, cells=(*other.cells[:3], replace(other.cells[3], arm="again")))
    both = replace(one, cells=one.cells).joined(other)
    assert both.arms == ("sequential", "threshold", "again")
    assert both.columns["right"].shape == (5, 6)
    assert np.array_equal(both.columns["right"][:4], one.columns["right"])  # another arm fills no gap
    assert (both.columns[ANSWER][4] == MISSING).all()
    filled = one.joined(table(6, seed=1))
    assert np.array_equal(filled.columns["right"][3, :4], one.columns["right"][3, :4])
    assert np.array_equal(filled.columns["right"][3, 4:], table(6, seed=1).columns["right"][3, 4:])
    with pytest.raises(ValueError, match="tables must be of the same prompts"):
        one.joined(table(7))


def test_texts_are_numbered_prompt_by_prompt():
    answers = np.array([[5.0, 7.0], [5.0, 8.0], [np.nan, 7.0], [6.0, 9.0]])
    assert number_texts(answers).T.tolist() == [[0, 0, MISSING, 1], [0, 1, 0, 2]]


@pytest.mark.parametrize("loss", ["flip", "difference"])
def test_a_calibration_of_all_but_a_few_prompts_chooses_what_truly_holds(loss):
    control = RiskControl(loss, 0.01, 0.95)
    found = judge(replay(table(), "threshold", control, prompts=3900, replays=20), table(), "threshold", control)
    assert (found.best, found.none, found.rounds_ratio) == (0.99, 0.0, 1.0)
    assert (found.prompts, found.others, found.replays) == (3900, 100, 20)
    assert found.true_loss == pytest.approx(0.002, abs=0.003)


def test_the_promise_is_broken_as_seldom_as_it_says_and_few_prompts_promise_nothing():
    """.9 loses 1.4 %: a replay that chose it broke a promise of 1 %."""
    found = {
        (row.max_loss, row.prompts): row
        for row in acceptances(
            table(), ["threshold"], losses=["flip"], promises=[0.01, 0.02], sizes=[200, 600], replays=200
        )
    }
    assert all(row.kept and row.exceeded <= 0.05 + 2 * row.standard_error for row in found.values())
    assert found[0.01, 200].none == 1.0  # 299 prompts are needed
    assert found[0.01, 200].rounds_ratio is None
    assert found[0.02, 600].best == 0.9
    assert 1.0 < found[0.02, 600].rounds_ratio < 1.25  # sometimes .99 is chosen
    assert found[0.01, 600].standard_error == pytest.approx((0.05 * 0.95 / 200) ** 0.5)


def test_a_broken_promise_is_counted():
    """Bounds that are far too low choose .5 in every replay."""
    control = RiskControl("flip", 0.01, 0.95)
    replays = replay(table(), "threshold", control, prompts=500, replays=50)
    found = judge(replace(replays, bounds=0 * replays.bounds), table(), "threshold", control)
    assert (found.exceeded, found.kept) == (1.0, False)
    with pytest.raises(ValueError, match="prompts must be fewer than the 4000 that threshold ran on, got 4000"):
        replay(table(), "threshold", control, prompts=4000)


def test_rounds_are_read_off_between_two_settings():
    curve = Curve(*(np.array([values]) for values in ([0.8, 0.9], [4.0, 8.0], [4.0, 8.0], [1.0, 1.0])))
    assert read_off(curve, np.array([0.85])) == pytest.approx([6.0])
    assert read_off(curve, np.array([0.7])) == pytest.approx([4.0])
    assert np.isnan(read_off(curve, np.array([0.95]))).all()


def contest_table() -> OutcomeTable:
    """Checked drafts in half of the rounds of the rule, at the same answers."""
    rule = table(3000)
    drafts = [replace(cell, arm="threshold-exact-4", kind="learned", policy="verified") for cell in rule.cells[1:]]
    columns = {name: np.vstack([values, values[1:]]) for name, values in rule.columns.items()}
    columns["rounds"][4:] //= 2
    return replace(rule, cells=(*rule.cells, *drafts), columns=columns)


def test_checked_drafts_are_compared_with_the_best_rival_chosen_on_other_prompts():
    found = contest(Splits(contest_table(), 1000, 2000), tolerance=0.02)
    assert (found.rival["arm"], found.rival["dial"], found.checked["dial"]) == ("threshold", 0.9, 0.9)
    assert found.ratio["estimate"] == found.read_off["estimate"] == pytest.approx(0.5)
    assert (found.fewer_than_all, found.test) == (True, 2000)
    assert found.reference == pytest.approx(1.0)
    json.dumps(found.row())
    none = contest(Splits(contest_table(), 1000, 2000), tolerance=-0.5)
    assert (none.rival, none.checked, none.ratio) == (None, None, None)
    with pytest.raises(ValueError, match="outcomes must hold threshold on the first 4000 prompts, got fewer"):
        standing(Splits(contest_table(), 1000, 3000), "threshold", tolerance=0.01)


def test_exact_drafts_are_held_against_their_rule():
    whole = contest_table()
    whole.columns[ANSWER][4, 0] = 3
    found = {one.value: one for one in same_texts(whole, "threshold-exact-4", "threshold")}
    assert {value: one.equal for value, one in found.items()} == {0.99: 3000, 0.9: 3000, 0.5: 2999}
    assert {one.rounds_ratio for one in found.values()} == {one.most_rounds for one in found.values()} == {0.5}
