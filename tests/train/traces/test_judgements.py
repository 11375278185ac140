"""Labels of harm, benefit and gain, judged by what the careful decoder makes of a state."""

from __future__ import annotations

import pytest
import torch

from decoding.policies.quota import Sequential
from decoding.traces.branches import FLOOR
from decoding.traces.labelling import Labelling
from decoding.traces.trace import load_table
from train.head.data import HeadData


def judged(collector_of, trap, tasks, example, folder, response, **labelling) -> list[dict]:
    settings = {"states_per_prompt": 3, "labelled": 3, "branches": 4, "strata": 1, "finished": 4, **labelling}
    collector = collector_of(
        trap, tasks(3, 3, unique=False), drivers={"slow": Sequential()}, labelling=Labelling(**settings), block_length=3
    )
    collector.run({"train": [example("0", response)]}, folder)
    return sorted(load_table(folder, trap), key=lambda r: r["round"])


@pytest.mark.parametrize(
    ("response", "harm", "benefit"), [("111", [1, 0], [-1, -1]), ("101", [-1, -1], [1, 0]), ("000", [-1, -1], [0, 0])]
)
def test_harm_and_benefit_are_judged_against_the_free_finish(
    collector_of, trap, tasks, example, tmp_path, response, harm, benefit
):
    """The free finish says 111; with the second position forced first it is 101; the third is 1 in any case."""
    first, second, _ = judged(collector_of, trap, tasks, example, tmp_path, response)
    branches = sorted(first["branches"], key=lambda one: one["position"])
    assert [one["position"] for one in branches] == [-1, 1, 2]  # the beam commits the first in any case
    assert [one["harm"] for one in branches] == [-1, *harm]
    assert [one["benefit"] for one in branches] == [-1, *benefit]
    assert first["reference"] == ([1, 1, 1] if response == "111" else [-1] * 3)
    assert branches[1]["answer"] == ([1, 0, 1] if response == "101" else [])  # its own, where it is right
    assert branches[2]["answer"] == []
    assert [one["position"] for one in second["branches"]] == [-1]  # the plan takes what is left
    assert not first["unique_answer"]


def test_only_some_branches_are_finished(collector_of, trap, tasks, example, tmp_path):
    """A branch that says what the free finish says is judged with it."""
    first, *_ = judged(collector_of, trap, tasks, example, tmp_path, "111", finished=0)
    assert {one["position"]: one["harm"] for one in first["branches"]} == {-1: -1, 1: -1, 2: 0}


def test_a_gain_is_judged_by_the_branchs_own_answer():
    alone = {"log_risk": [-0.5, -0.5], "token": [1, 1], "answer": []}
    branch = {"position": 0, "kind": 2, "log_confidence": -1.0, "eq7": 0.0, "harm": 0, "answer": [0, 0]}
    branch |= {"log_risk": [FLOOR, -9.0], "token": [-1, 0]}
    row = {"reference": [1, 1], "asked": [True, True], "branches": [alone, branch]}
    for answer, gain in (([0, 0], 1.0), ([], -1.0)):
        data, found = HeadData([], 2, None, 0.9, 1), {"gain": torch.zeros(1, 1), "eq7": torch.zeros(1, 1)}
        found["log_confidence"] = torch.zeros(1, 1)
        row["branches"][1]["answer"] = answer
        position, beam, harm = torch.zeros(1, 1).long(), torch.zeros(1, 1, dtype=torch.bool), torch.zeros(1, 2).long()
        data._fill_branches(row, 0, 0, position, beam, found, harm)
        assert found["gain"].item() == gain


def test_states_that_teach_nothing_are_left_out(collector_of, trap, tasks, example, tmp_path):
    assert judged(collector_of, trap, tasks, example, tmp_path, "111", labelled=0) == []
