"""Which arms stand in the table, and what their ratios are."""

from __future__ import annotations

import json

import pytest

from decoding.comparison.arms import Arm
from train.clock.store import Results
from train.clock.summary import compared, rows_of, summarise
from train.clock.table import table

HOW = {"batch_size": 64, "slack": 0.01, "num_dev": 9, "num_prompts": 9, "seed": 0}
PLACE = {"device": "a device", "dtype": "float32", "engine": "graphs", "torch": "2"}
REFERENCE = Arm("sequential", "headless", "sequential").cells[0].key


def clocked(ms: float, *, accuracy: float = 0.9, rounds: float = 4.0, forwards: float = 4.0) -> dict:
    found = {"estimate": accuracy, "low": accuracy - 0.02, "high": accuracy + 0.02}
    figures = {"n": 9, "accuracy": found, "rounds": rounds, "sequence_forwards": forwards, "looks": 0.0, "fallbacks": 0}
    return {**figures, "batch": 64, "ms": ms, "ms_a_round": ms / rounds, "seconds": [ms, 2 * ms] * 5}


def choice(name: str, kind: str, policy: str, **settings) -> dict:
    return {"kind": kind, "policy": policy, "dial": "threshold", "key": name, "value": 0.9, "settings": settings}


@pytest.fixture
def results(tmp_path) -> Results:
    found = Results(tmp_path / "sudoku" / "results.json", dict(HOW), PLACE, {"commit": "abc"})
    found.dev[REFERENCE] = clocked(9)
    arms = {
        "slow": choice("slow", "headless", "threshold"),
        "rule": choice("rule", "headless", "risk-sum"),
        "ete": choice("ete", "headless", "ete"),
        "look": choice("look", "learned", "learned", looks=1),
        "looks": choice("looks", "learned", "learned", looks=2),
        "parity": choice("parity", "learned", "learned-parity"),
        "lost": {**choice("lost", "headless", "factor"), "key": None, "value": None},
    }
    found.chosen.update(arms)
    times = {"slow": 5.0, "rule": 4.0, "look": 3.0, "looks": 2.0, "parity": 1.0}
    found.clocked.update({f"{name} 64": clocked(ms) for name, ms in times.items()})
    found.clocked["ete 64"] = clocked(2.0, accuracy=0.87, forwards=9.0)
    return found


def test_the_fastest_of_each_kind_are_compared(results):
    found = compared(64, rows_of(results, 64))
    roles = ("headless", "learned", "look_ahead", "in_its_place", "rule", "one_look")
    assert [found[role] for role in roles] == ["ete", "parity", "ete", "parity", "rule", "look"]
    assert found["time"] == found["time_in_its_place"] == pytest.approx({"estimate": 0.5, "low": 0.5, "high": 0.5})
    assert found["round"] == pytest.approx(0.75)


def test_an_interval_goes_over_batches(results):
    results.clocked["parity 64"]["seconds"] = [1.0, 1.0, 4.0, 1.0, 1.0, 4.0, 1.0, 1.0, 4.0, 1.0]
    found = compared(64, rows_of(results, 64))["time"]
    assert found["estimate"] == pytest.approx(19 / 30)
    assert found["low"] < found["estimate"] < found["high"]


def test_a_ratio_of_fewer_than_ten_batches_has_no_interval(results):
    for name, count in (("ete", 9), ("parity", 9)):
        results.clocked[f"{name} 64"]["seconds"] = results.clocked[f"{name} 64"]["seconds"][:count]
    row = summarise(results)
    assert row["comparisons"][0]["time"] == {"estimate": pytest.approx(0.5), "low": None, "high": None}
    drawn = table([row])
    assert "over batches, arms as chosen" in drawn.splitlines()[0]
    assert "`parity` 0.9 0.900 @ 4.0, 1.00 | 0.50 |" in drawn


def test_an_arm_holds_if_it_is_at_the_reference_on_the_test_prompts_too(results):
    assert {row["holds"] for row in rows_of(results, 64)} == {None}
    results.clocked[f"{REFERENCE} 64"] = clocked(90, accuracy=0.91)
    holds = {row["arm"]: row["holds"] for row in rows_of(results, 64)}
    assert holds.pop("ete") is False
    assert set(holds.values()) == {True}


def test_an_arm_that_is_not_at_the_reference_on_test_is_neither_fastest_nor_counted(results):
    results.clocked[f"{REFERENCE} 64"] = clocked(90, accuracy=0.91)
    found = compared(64, rows_of(results, 64))
    assert (found["headless"], found["learned"], found["look_ahead"]) == ("rule", "parity", None)
    assert (found["lost_on_test"], found["known_on_test"]) == (["ete"], True)
    drawn = table([summarise(results)])
    assert "head / look-ahead on 0 tasks" in drawn
    assert "Not at the reference on test: ete." in drawn
    assert "| sudoku | 64 | 0.910 @ 4.0 | `rule` 0.9 " in drawn


def test_results_of_two_devices_or_commits_are_not_counted_together(results):
    rows = [json.loads(json.dumps(summarise(results))) for _ in range(3)]
    rows[1]["environment"]["commit"], rows[2]["place"]["device"] = "def", "another"
    drawn = table([*rows, rows[0]])
    assert "Batch 64 (a device, commit abc): head / best rule on 2 tasks" in drawn
    assert "Batch 64 (a device, commit def): head / best rule on 1 tasks" in drawn
    assert "Batch 64 (another, commit abc): head / best rule on 1 tasks" in drawn


def test_the_table_says_every_arm_and_counts_the_bars(results):
    drawn = table([json.loads(json.dumps(summarise(results), allow_nan=False))])
    assert "head / best rule on 1 tasks, 1 at 0.85 or less, 1 at 1 or less" in drawn
    assert all(f"| `{name}` 0.9 |" in drawn for name in ("slow", "rule", "ete", "look", "looks", "parity"))
    assert "Not at the reference: lost." in drawn
    assert "| sudoku* | 64 | 0.900 @ 4.0 (dev) | `ete` 0.9 0.870 @ 4.0, 2.00 |" in drawn


def test_an_arm_that_is_not_clocked_yet_is_left_out(results):
    for name in ("ete", "parity"):
        del results.clocked[f"{name} 64"]
    drawn = table([summarise(results)])
    assert "| `ete`" not in drawn
    assert compared(64, rows_of(results, 64))["time_in_its_place"] is None
