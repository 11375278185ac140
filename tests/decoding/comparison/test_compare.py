"""A comparison on toy denoisers: the same prompts for every arm, interleaved, resumable, and its rows worked out by hand."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest

import decoding.comparison.runs
from decoding import provenance
from decoding.api import generate
from decoding.comparison.arms import Arm
from decoding.comparison.compare import Comparison, compare
from decoding.comparison.curves import resample
from decoding.comparison.records.ledger import COLUMNS, Ledger
from decoding.comparison.risk_control import RiskControl
from decoding.comparison.table import plot, table
from decoding.comparison.verdicts import signatures
from tests.decoding.comparison.small_comparison import (
    ARMS,
    ETE,
    ETE_SETTINGS,
    SEQUENTIAL,
    THRESHOLD,
    compared,
    problems,
    starts_with_zero,
)
from tests.decoding.comparison.toys import GROUPS, SIZE, toy


def without_time(comparison: Comparison) -> dict:
    rows = asdict(comparison)
    rows["verdicts"] = [row for row in rows["verdicts"] if row["finding"] != "wall clock"]
    return rows | {"results": [{k: v for k, v in row.items() if k != "seconds"} for row in rows["results"]]}


def test_rows_of_results_are_those_of_the_decoder(found: Comparison) -> None:
    alone = generate(toy(), ["100"], "threshold", threshold=0.9, gen_length=GROUPS * SIZE, block_length=SIZE)
    (row,) = [r for r in found.results if (r["arm"], r["dial"], r["split"]) == ("threshold", 0.9, "test")]
    assert row["n"] == 5
    assert alone.rounds.tolist() == [2 * GROUPS]  # a fallback and a cascade for each block
    assert row["rounds"]["estimate"] == pytest.approx(2 * GROUPS)
    assert row["sequence_forwards"]["estimate"] == row["rounds"]["estimate"]
    assert row["token_positions"]["estimate"] == pytest.approx(2 * GROUPS * (3 + GROUPS * SIZE))
    assert row["new_tokens"]["estimate"] == pytest.approx(GROUPS * SIZE)
    assert row["bits_per_round"]["estimate"] == pytest.approx(0.5, rel=1e-4)  # one bit every second round
    assert row["accuracy"] == pytest.approx({"estimate": 1.0, "low": 1.0, "high": 1.0})
    assert row["settings"] == {"threshold": 0.9}
    assert len(found.results) == 2 * (1 + 2 + 1)


def test_curves_pairs_and_calibration_by_hand(found: Comparison) -> None:
    rows = {row["arm"]: row for row in found.curves}
    assert rows["sequential"]["rounds_at_reference"]["estimate"] == pytest.approx(GROUPS * SIZE)
    assert rows["sequential"]["aup"]["estimate"] == pytest.approx(100)
    assert rows["threshold"]["dial_chosen"] == 0.4  # as right as any here, and a block a round
    assert rows["threshold"]["rounds_at_reference"]["estimate"] == pytest.approx(GROUPS)
    assert rows["threshold"]["null_share"] == 0
    assert rows["threshold"]["holds"] is True
    assert rows["threshold"]["aup"]["estimate"] == pytest.approx(100 * SIZE)  # rho 1, 1.5 and 3 at 100 %
    assert rows["threshold"]["gap_closed"] is None  # no ceiling ran
    pair = next(row for row in found.pairs if (row["a"], row["b"]) == ("sequential", "ete"))
    assert pair["rounds_ratio"]["estimate"] == pytest.approx(GROUPS * SIZE / 2)
    assert pair["accuracy_difference"]["estimate"] == 0
    assert found.calibration == []  # not every prompt has a reference


def test_explored_rounds_cost_sequence_forwards_and_not_rounds(found: Comparison) -> None:
    row = next(r for r in found.results if (r["arm"], r["split"]) == ("ete", "test"))
    assert (row["rounds"]["estimate"], row["sequence_forwards"]["estimate"]) == (2, 1 + 4)


def test_every_arm_sees_the_same_prompts_chunk_by_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, list[str]]] = []

    def watch(denoiser, tokens, policy, **options):
        seen.append((repr(policy), ["".join(map(str, row)) for row in tokens.tolist()]))
        return generate(denoiser, tokens, policy, **options)

    monkeypatch.setattr(decoding.comparison.runs, "generate", watch)
    compared()
    test = [(policy, prompts) for policy, prompts in seen if prompts[0] not in problems().dev]
    assert [prompts for _, prompts in test] == 4 * [["100", "101"]] + 4 * [["110", "111"]] + 4 * [["001"]]
    for first in range(0, 12, 4):
        assert len({policy for policy, _ in test[first : first + 4]}) == 4
    assert len({test[first][0] for first in range(0, 12, 4)}) == 3  # another arm comes first in every chunk


@pytest.mark.parametrize("after", [1, 13])
def test_a_killed_run_goes_on_and_gives_the_same(after: int, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = SimpleNamespace(count=0)

    def dies(*arguments, **options):
        calls.count += 1
        if calls.count > after:
            raise KeyboardInterrupt
        return generate(*arguments, **options)

    arms = (*ARMS, Arm("random-parity", "control", "random-parity", settings={**ETE_SETTINGS, "threshold": 0.9}))
    monkeypatch.setattr(decoding.comparison.runs, "generate", dies)
    with pytest.raises(KeyboardInterrupt):
        compared(*arms, out=tmp_path)
    with (tmp_path / "groups.jsonl").open("a") as file:
        file.write('{"split": "te')  # half a line
    calls.count = -100
    resumed = compared(*arms, out=tmp_path)
    assert calls.count == -100 + 5 * 2 + 5 * 3 - after
    assert without_time(resumed) == without_time(compared(*arms))
    assert len((tmp_path / "groups.jsonl").read_text().splitlines()) == 1 + 5 * 3 + 5 * 5
    calls.count = 10**6  # would die
    assert asdict(compared(*arms, out=tmp_path)) == asdict(resumed)


@pytest.mark.parametrize("changed", [{"seed": 1}, {"batch_size": 3}])
def test_other_settings_do_not_mix_with_what_is_there(changed, tmp_path) -> None:
    compared(SEQUENTIAL, out=tmp_path)
    with pytest.raises(ValueError, match=f"{next(iter(changed))} must be .* to go on with .*choose another --out"):
        compared(SEQUENTIAL, out=tmp_path, **changed)


def test_other_prompts_do_not_mix_with_what_is_there(tmp_path) -> None:
    compared(SEQUENTIAL, out=tmp_path)
    with pytest.raises(ValueError, match="prompts must be"):
        compare(
            toy(), [SEQUENTIAL], problems(test=("111",)), starts_with_zero, out=tmp_path, batch_size=2, progress=False
        )


def test_another_setting_of_an_arm_is_run_anew_and_not_mixed(tmp_path) -> None:
    first = compared(SEQUENTIAL, ETE, out=tmp_path)
    never = replace(ETE, settings={**ETE_SETTINGS, "gamma": 0.0})
    second = compared(SEQUENTIAL, never, out=tmp_path)
    assert without_time(second) == without_time(compared(SEQUENTIAL, never))
    assert without_time(second) != without_time(first)


def test_a_damaged_line_is_named(tmp_path) -> None:
    compared(SEQUENTIAL, out=tmp_path)
    file = tmp_path / "groups.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], lines[1][:-9], *lines[2:]]) + "\n")
    with pytest.raises(ValueError, match=r"groups.jsonl, line 2 must be a line of a comparison"):
        compared(SEQUENTIAL, out=tmp_path)


def test_the_json_is_whole_and_strict(found: Comparison, tmp_path) -> None:
    found.save(tmp_path / "comparison.json", {"seed": 0})
    read = json.loads((tmp_path / "comparison.json").read_text())
    assert list(read) == ["results", "curves", "pairs", "calibration", "parity", "verdicts", "environment"]
    assert [path.name for path in tmp_path.iterdir()] == ["comparison.json"]


def test_the_table_shows_each_arm_once_and_says_when_prompts_are_few(found: Comparison, tmp_path) -> None:
    text = table(found)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert "rounds / ete" in rows[0]
    assert [row.split("|")[1].strip() for row in rows[2:5]] == ["sequential", "threshold", "ete"]
    assert "5 test prompts: a look, not a claim" in text
    assert [path.name for path in plot(found, tmp_path)] == ["groups.png"]


def test_an_arm_under_the_reference_has_no_rounds_at_reference_and_says_so() -> None:
    def only_slow(prompt: str, text: str) -> bool:
        return len(seen) % 7 == 0 if (seen.append(text) or True) else False

    seen: list[str] = []
    found = compare(toy(), ARMS, problems(), only_slow, batch_size=8, progress=False)
    nulls = [row for row in found.curves if row["rounds_at_reference"] is None]
    for row in nulls:
        assert row["dial_chosen"] is None
        assert row["accuracy_difference"] is None
    assert {row["arm"] for row in found.verdicts if row["finding"] == "null"} == {row["arm"] for row in nulls}


def test_tuning_picks_the_fewest_rounds_on_dev_with_the_budget_given() -> None:
    free = Arm(
        "ete", "headless", "ete", "threshold", (0.9,), {"step_budget": None}, {"gamma": [0.0], "initial_blocks": [1, 2]}
    )
    found = compared(SEQUENTIAL, free, tuning=2)
    assert next(row for row in found.results if row["arm"] == "ete")["settings"]["initial_blocks"] == 2
    untuned = compared(SEQUENTIAL, free)
    assert "initial_blocks" not in next(row for row in untuned.results if row["arm"] == "ete")["settings"]


def test_a_comparison_needs_its_reference_and_different_names() -> None:
    with pytest.raises(ValueError, match="arms must include the reference sequential"):
        compared(THRESHOLD)
    with pytest.raises(ValueError, match="names of arms must differ, got threshold twice"):
        compared(SEQUENTIAL, THRESHOLD, THRESHOLD)
    with pytest.raises(ValueError, match="dev and test prompts of task groups must differ"):
        problems(test=("010",))


def test_the_ledger_keeps_columns_by_prompt(tmp_path) -> None:
    cell = SEQUENTIAL.cells[0]
    ledger = Ledger(tmp_path / "x.jsonl", {"task": "x"})
    values = np.arange(2.0 * len(COLUMNS)).reshape(2, -1)
    values[:, 0] = 1, 0
    ledger.add("test", cell, [1, 0], values)
    for kept in (ledger, Ledger(tmp_path / "x.jsonl", {"task": "x"})):
        assert kept.table("test", cell)["right"].tolist() == [0, 1]
        assert kept.table("test", cell)["rounds"].tolist() == [len(COLUMNS) + 1, 1]
        assert kept.has("test", cell, [0, 1])
        assert not kept.has("test", cell, [0, 2])
        assert not kept.has("dev", cell, [0])


def test_failure_signatures_are_told_for_each_arm_at_the_same_threshold(found: Comparison) -> None:
    about_ete = [row for row in found.verdicts if row["arm"] == "ete"]
    assert "wall clock" in {row["finding"] for row in about_ete}  # two branches a round for fewer rounds
    slow = Arm("ete", "headless", "ete", "threshold", (0.9999999,), {**ETE_SETTINGS, "branches": 1, "gamma": 0.6})
    careless = replace(
        slow, settings={**slow.settings, "implicit": False, "targeted": False, "gamma": 0.0}, name="never"
    )
    plain = replace(THRESHOLD, values=(0.9999999,))
    sentences = compared(SEQUENTIAL, plain, slow, careless).verdicts
    assert [row["arm"] for row in sentences if row["finding"] == "no exploration"] == ["never"]


def columns(right: int = 40, **values: float) -> dict[str, np.ndarray]:
    """The figures of 40 prompts, the first `right` of them solved."""
    plain = {"rounds": 4.0, "sequence_forwards": 4.0, "seconds": 1.0, "idle": 0.0, "unforced": 6.0, "commits": 6.0}
    table = {name: np.full(40, value) for name, value in (plain | values).items()}
    return table | {"right": (np.arange(40) < right).astype(float)}


@pytest.mark.parametrize(
    ("changes", "findings"),
    [
        ({}, {"no exploration"}),
        ({"seconds": 2.0}, {"no exploration"}),
        ({"rounds": 3.0, "sequence_forwards": 3.0}, set()),
        ({"rounds": 3.0, "sequence_forwards": 5.0}, {"wall clock"}),
        ({"rounds": 3.0, "sequence_forwards": 3.0, "seconds": 1.1}, {"wall clock"}),
        ({"rounds": 5.0, "sequence_forwards": 5.0, "idle": 2.5}, set()),
        ({"rounds": 5.0, "sequence_forwards": 5.0, "idle": 2.6}, {"stalling"}),
        ({"sequence_forwards": 5.0, "unforced": 2.9}, {"stalling"}),
        ({"rounds": 3.0, "sequence_forwards": 3.0, "right": 39}, set()),  # one prompt of 40 is chance
        ({"rounds": 3.0, "sequence_forwards": 3.0, "right": 30}, {"accuracy collapse"}),
    ],
)
def test_failure_signatures_are_judged_by_figures(changes, findings: set[str]) -> None:
    assert {name for name, _ in signatures(resample(40), columns(**changes), columns())} == findings


def test_a_copy_without_history_says_the_commit_it_is_told(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "decoding").mkdir()
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "decoding" / "provenance.py"))
    monkeypatch.delenv("COMMIT", raising=False)
    assert provenance.commit() is None
    monkeypatch.setenv("COMMIT", "abc")
    assert provenance.commit() == "abc"


def test_dials_are_chosen_by_risk_control_where_a_promise_is_given() -> None:
    for most, dial in ((0.6, 0.4), (0.05, None)):  # three dev prompts without a loss: at most .536 at confidence .9
        rows = {
            row["arm"]: row for row in compared(SEQUENTIAL, THRESHOLD, control=RiskControl("flip", most, 0.9)).curves
        }
        assert rows["threshold"]["dial_chosen"] == dial
