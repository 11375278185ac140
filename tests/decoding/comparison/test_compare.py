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
from decoding.comparison.arms import Arm, select
from decoding.comparison.compare import Comparison, compare
from decoding.comparison.curves import resample
from decoding.comparison.parity import LEARNED, RANDOM, Point, at_point, lines, nearly_best, operating_point
from decoding.comparison.problems import Problems
from decoding.comparison.records.ledger import COLUMNS, Ledger
from decoding.comparison.results import Pair
from decoding.comparison.risk_control import RiskControl
from decoding.comparison.table import plot, table
from decoding.comparison.verdicts import signatures
from decoding.features import NAMES
from models.heads.scoring_head import HeadConfig, ScoringHead
from models.toys.toy import GroupDenoiser
from tests.decoding.comparison.toys import GROUPS, SIZE, toy

SEQUENTIAL = Arm("sequential", "headless", "sequential")
THRESHOLD = Arm("threshold", "headless", "threshold", "threshold", (0.4, 0.9), promise="one minus dial")
ETE_SETTINGS = {"gamma": 0.6, "min_masks": 0, "step_budget": None, "initial_blocks": GROUPS}
ETE_SETTINGS |= {"branches": 4, "c_info": 0.5, "implicit_scope": "global"}
ETE = Arm("ete", "headless", "ete", "threshold", (0.9,), ETE_SETTINGS)
ARMS = (SEQUENTIAL, THRESHOLD, ETE)
ALL_ZERO = "0" * GROUPS * SIZE


def problems(**changes) -> Problems:
    values = {
        "dev": ("010", "011", "000"),
        "test": ("100", "101", "110", "111", "001"),
        "references": {"100": ALL_ZERO},
    }
    return Problems(**{"task": "groups", "gen_length": GROUPS * SIZE, "block_length": SIZE, **values, **changes})


def starts_with_zero(prompt: str, text: str) -> bool:
    return text.startswith("0")


def compared(*arms: Arm, **options) -> Comparison:
    options = {"batch_size": 2, "progress": False, **options}
    return compare(toy(), arms or ARMS, problems(), starts_with_zero, **options)


@pytest.fixture(scope="module")
def found() -> Comparison:
    return compared()


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


def test_a_task_may_have_its_own_settings_of_the_dial() -> None:
    arm = replace(THRESHOLD, values_for={"groups": (0.5, 0.7), "else": (0.1, 0.2)})
    for task, expected in (("groups", (0.5, 0.7)), ("else", (0.1, 0.2)), ("third", (0.4, 0.9))):
        assert arm.on(task).values == expected
        assert arm.on(task).values_for == {}
    rows = [row for row in compared(SEQUENTIAL, arm).results if row["arm"] == "threshold"]
    assert {row["dial"] for row in rows} == {0.5, 0.7}


def test_a_task_may_have_its_own_tuning_space() -> None:
    arm = replace(THRESHOLD, tune={"a": [1]}, tune_for={"groups": {"block_length": [None, 2]}})
    assert arm.on("groups").tune == {"block_length": [None, 2]}
    assert arm.on("groups").tune_for == {}
    assert arm.on("else").tune == {"a": [1]}
    with pytest.raises(
        ValueError, match=r"^settings of arm threshold must leave out threshold, which is swept, got it$"
    ):
        replace(THRESHOLD, settings={"threshold": 0.5}, tune_for={"groups": {"threshold": [0.5]}})


def test_an_arm_decodes_with_its_own_block_length() -> None:
    """One position opened at a time is one position a round, whatever the threshold."""
    narrow = replace(THRESHOLD, name="narrow", settings={"block_length": 1})
    rows = compared(SEQUENTIAL, THRESHOLD, narrow).results
    rounds = {(row["arm"], row["dial"]): row["rounds"]["estimate"] for row in rows if row["split"] == "test"}
    assert {rounds["narrow", dial] for dial in THRESHOLD.values} == {rounds["sequential", None]}
    assert min(rounds["threshold", dial] for dial in THRESHOLD.values) < rounds["sequential", None]
    assert narrow.cells[0].policy_settings == {"threshold": THRESHOLD.values[0]}
    assert narrow.cells[0].key != THRESHOLD.cells[0].key


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ((0.5,), "values_for groups of arm threshold must be as many as its values, 2, got 1"),
        ((0.5, 0.7, 0.9), "values_for groups of arm threshold must be as many as its values, 2, got 3"),
        ((0.5, 0.5), r"values of arm threshold must differ from each other, got \(0.5, 0.5\)"),
    ],
)
def test_every_task_gets_as_many_settings(values: tuple[float, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        replace(THRESHOLD, values_for={"groups": values})


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


def test_draws_are_distinct_seeded_points_of_the_space() -> None:
    arm = replace(ETE, settings={}, tune={"gamma": [0.1, 0.2, 0.3], "branches": [2, 4]})
    drawn = arm.draws(4, seed=0)
    assert len({json.dumps(a.settings) for a in drawn}) == 4
    assert [a.settings for a in drawn] == [a.settings for a in arm.draws(4, seed=0)]
    assert len(arm.draws(99, seed=0)) == 6
    assert all(a.tune == {} for a in drawn)


def test_learned_arms_are_left_out_without_a_head_and_refused_when_named() -> None:
    learned = Arm("learned", "learned", "learned", "risk_bound", (0.01,))
    assert select([*ARMS, learned], None, has_head=False) == ([*ARMS], ["learned"])
    assert select([*ARMS, learned], "learned", has_head=True) == ([SEQUENTIAL, learned], [])
    with pytest.raises(ValueError, match="arm learned must have a scoring head"):
        select([*ARMS, learned], "threshold,learned", has_head=False)
    with pytest.raises(ValueError, match="arms must be among sequential, threshold, ete, learned, got 'beam'"):
        select([*ARMS, learned], "beam", has_head=True)
    assert select([SEQUENTIAL, replace(ETE, on_request=True)], None, has_head=False) == ([SEQUENTIAL], [])
    assert select([SEQUENTIAL, replace(ETE, on_request=True)], "ete", has_head=False)[0][1].name == "ete"
    with_head = replace(learned, head="folder")
    assert select([*ARMS, with_head], None, has_head=False) == ([*ARMS, with_head], [])


def with_head(seed: int) -> GroupDenoiser:
    """An untrained linear head: its risk is one minus the confidence."""
    denoiser = toy()
    denoiser.__dict__["head"] = ScoringHead(HeadConfig("linear", NAMES))
    denoiser.head.mean.fill_(seed)
    return denoiser


def test_learned_arms_run_on_their_head_and_another_head_is_another_run(tmp_path) -> None:
    learned = Arm("learned", "learned", "learned", "risk_bound", (0.1,), promise="dial")
    renamed = replace(learned, name="mine", head="elsewhere")
    plain = replace(THRESHOLD, values=(0.9,))
    options = {"batch_size": 8, "progress": False, "out": tmp_path}
    arms, answers = [SEQUENTIAL, plain, learned, renamed], dict.fromkeys(problems().test, ALL_ZERO)
    wanted = problems(references=answers)
    found = compare(with_head(0), arms, wanted, starts_with_zero, heads={"mine": with_head(1)}, **options)
    rows = {row["arm"]: row for row in found.curves}
    assert rows["learned"]["rounds_at_reference"] == rows["mine"]["rounds_at_reference"]
    assert rows["learned"]["rounds_at_reference"] == rows["threshold"]["rounds_at_reference"]
    assert [(row["arm"], row["bound"], row["wrong"]["estimate"]) for row in found.calibration] == [
        ("threshold", pytest.approx(0.1), 0),
        ("learned", 0.1, 0),
        ("mine", 0.1, 0),
    ]
    assert {row["arm"] for row in found.verdicts if row["finding"] == "no difference"} == {"learned", "mine"}
    before = len((tmp_path / "groups.jsonl").read_text().splitlines())
    assert before == 1 + 4 * (3 + 5)
    compare(with_head(2), arms[:3], wanted, starts_with_zero, **options)
    assert len((tmp_path / "groups.jsonl").read_text().splitlines()) == before + 3 + 5


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"policy": "beam"}, "policy of arm threshold must be one of"),
        ({"dial": ""}, "values of arm threshold must go with a dial"),
        ({"values": (0.9, 0.9)}, "values of arm threshold must differ"),
        ({"settings": {"threshold": 0.5}}, "settings of arm threshold must leave out threshold"),
    ],
)
def test_a_wrong_declaration_is_refused(changes, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        replace(THRESHOLD, **changes)


def test_a_comparison_needs_its_reference_and_different_names() -> None:
    with pytest.raises(ValueError, match="arms must include the reference sequential"):
        compared(THRESHOLD)
    with pytest.raises(ValueError, match="names of arms must differ, got threshold twice"):
        compared(SEQUENTIAL, THRESHOLD, THRESHOLD)
    with pytest.raises(ValueError, match="dev and test prompts of task groups must differ"):
        problems(test=("010",))


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


def test_the_ledger_keeps_columns_by_prompt(tmp_path) -> None:
    cell = SEQUENTIAL.cells[0]
    ledger = Ledger(tmp_path / "x.jsonl", {"task": "x"})
    values = np.arange(2.0 * len(COLUMNS)).reshape(2, -1)
    ledger.add("test", cell, [1, 0], values)
    for kept in (ledger, Ledger(tmp_path / "x.jsonl", {"task": "x"})):
        assert kept.table("test", cell)["right"].tolist() == [len(COLUMNS), 0]
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
