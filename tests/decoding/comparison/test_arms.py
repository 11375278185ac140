"""What an arm may ask for: settings, tuning and lengths of its own for a task, a head of its own, and what is refused."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from importlib import import_module

import pytest

from decoding.comparison.arms import Arm, select
from decoding.comparison.compare import compare
from decoding.features import NAMES
from decoding.names import POLICIES, WHOLE
from models.heads.scoring_head import HeadConfig, ScoringHead
from models.toys.toy import GroupDenoiser
from tests.decoding.comparison.small_comparison import (
    ALL_ZERO,
    ARMS,
    ETE,
    SEQUENTIAL,
    THRESHOLD,
    compared,
    problems,
    starts_with_zero,
)
from tests.decoding.comparison.toys import toy


@pytest.mark.parametrize("name", [name for name, policy in POLICIES.items() if policy.dial])
def test_a_dial_of_whole_numbers_is_one_for_the_comparison_too(name: str) -> None:
    """What a class takes as a whole number would be refused as 1.0 by its constructor."""
    module, kind = POLICIES[name].home.split(":")
    dial = POLICIES[name].dial
    declared = {one.name: str(one.type) for one in fields(getattr(import_module(module), kind))}[dial]
    assert (declared.split(" ")[0] == "int") == (dial in WHOLE)


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
    with pytest.raises(ValueError, match=r"got 'treshold': did you mean threshold\?"):
        select([*ARMS, learned], "treshold", has_head=True)
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
