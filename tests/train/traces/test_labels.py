"""Labels where no checker can judge: a position left for last, and what it says then."""

from __future__ import annotations

from dataclasses import replace

import torch

from decoding.policies.quota import Sequential
from decoding.state import start
from decoding.traces.labelling import Labelling
from decoding.traces.trace import load_table
from train.traces.labels import spread, token_left_for_last


def begin(tokens: torch.Tensor):
    return start(tokens, gen_length=3, block_length=3, mask_id=2, eos_id=None, step_budget=None, initial_blocks=1)


def test_a_position_is_filled_after_all_others(trap):
    """The second position says 0 alone, and 1 once the first has said 1."""
    state = begin(torch.zeros(2, 4, dtype=torch.long))
    mask = torch.ones_like(state.tokens, dtype=torch.bool)
    last = token_left_for_last(trap, state, torch.tensor([1, 2]), mask)
    assert last.tolist() == [1, 1]


def test_a_position_that_is_the_last_anyway_is_read_where_it_stands(trap):
    state = begin(torch.zeros(1, 4, dtype=torch.long))
    tokens, masked = torch.tensor([[0, 0, 2, 1]]), torch.tensor([[False, False, True, False]])
    last = token_left_for_last(trap, replace(state, tokens=tokens, masked=masked), torch.tensor([2]), masked | True)
    assert last.tolist() == [0]


def test_harm_is_a_token_that_is_not_chosen_again(collector_of, trap, tasks, example, tmp_path):
    task = replace(tasks(3, 3, unique=False), needs_answer=True, check=lambda example, text: 1 / 0)  # never asked
    labelling = Labelling(states_per_prompt=3, labelled=3, branches=4, strata=1, finished=4)
    collector = collector_of(trap, task, drivers={"slow": Sequential()}, labelling=labelling, block_length=3)
    collector.run({"train": [example("0", "")]}, tmp_path)
    first = min(load_table(tmp_path, trap), key=lambda row: row["round"])
    branches = sorted(first["branches"], key=lambda one: one["position"])
    assert [one["position"] for one in branches] == [-1, 1, 2]  # the first is committed in any case
    assert [one["harm"] for one in branches] == [-1, 1, 0]
    assert [one["benefit"] for one in branches] == [-1, -1, -1]
    assert first["reference"] == [1, 1, 1]  # what the careful decoder writes


def test_prompts_with_and_without_an_answer_are_each_judged_their_way(collector_of, trap, tasks, example, tmp_path):
    task = replace(tasks(3, 3, unique=False), needs_answer=True, check=lambda example, text: text == example.answer)
    labelling = Labelling(states_per_prompt=3, labelled=3, branches=4, strata=1, finished=4)
    collector = collector_of(trap, task, drivers={"slow": Sequential()}, labelling=labelling, block_length=3)
    collector.run({"train": [example("0", "", ""), example("1", "", "101")]}, tmp_path)
    known = {0: set(), 1: set()}
    for row in load_table(tmp_path, trap):
        known[row["prompt_id"]] |= {(one["harm"], one["benefit"]) for one in row["branches"][1:]}
    assert known == {0: {(1, -1), (0, -1)}, 1: {(-1, 1), (-1, 0)}}


def test_labelled_branches_are_spread_over_all():
    valid = torch.tensor([[False, *[True] * 8], [False, *[True] * 2, *[False] * 6]])
    assert spread(valid, 4).sum(1).tolist() == [4, 2]
    assert spread(valid, 4)[0].nonzero().squeeze(1).tolist() == [2, 4, 6, 8]
    assert not spread(valid, 0).any()


def test_prompts_too_long_are_left_out_and_collection_stops(collector_of, groups, examples, tmp_path, caplog):
    groups.max_length = 18
    answers = iter([False, True, True])
    collector = collector_of(groups, chunk=2)
    progress: list[int] = []
    collector.run({"train": examples[:7]}, tmp_path, progress=progress.append, stop=lambda: next(answers))
    assert "bits: 2 prompts too long for the model are left out" in caplog.text
    assert progress == [2, 2]  # of 5 prompts: the first part, and one more before the time was over
    assert sorted(file.stem for file in tmp_path.glob("*.parquet")) == ["part-train-00000", "part-train-00001"]
