"""Prompts of a run: those of a user's file shared out to fit on and to choose by, and the canvases that they become."""

from __future__ import annotations

import json

import pytest
import torch

from train.tasks import Task, get
from train.traces.canvases import decode_text, encode
from train.traces.prompts import shared_out


def written(path, prompts):
    path.write_text("".join(json.dumps({"prompt": one}) + "\n" for one in prompts))
    return str(path)


@pytest.mark.parametrize("count", [2, 64, 1500])
def test_a_quarter_at_most_is_kept_to_choose_by(tmp_path, count):
    task = get("countdown4")
    stream = task.generate("train", seed=5)
    prompts = list(dict.fromkeys(next(stream).prompt for _ in range(count)))
    file = written(tmp_path / "mine.jsonl", prompts)
    fitted, dev = ([e.prompt for e in shared_out(task, file, split)] for split in ("train", "dev"))
    assert sorted([*fitted, *dev]) == sorted(prompts)
    assert len(dev) == max(1, min(304, len(prompts) // 4))
    assert [e.prompt for e in shared_out(task, file, "dev")] == dev


def test_test_prompts_stay_out_and_own_dev_prompts_are_kept(tmp_path):
    task = get("countdown4")
    by_split = {}
    for split in ("train", "dev", "test"):
        stream = task.generate(split, seed=1)
        by_split[split] = [next(stream).prompt for _ in range(6)]
    file = written(tmp_path / "mine.jsonl", [*by_split["train"], *by_split["dev"], *by_split["test"]])
    fitted, dev = ({e.prompt for e in shared_out(task, file, split)} for split in ("train", "dev"))
    assert (fitted, dev) == (set(by_split["train"]), set(by_split["dev"]))


def test_a_file_is_read_once_for_both_splits_and_again_when_it_changed(tmp_path, monkeypatch):
    stream = get("countdown4").generate("train", seed=1)
    prompts = [next(stream).prompt for _ in range(8)]
    file, reads = written(tmp_path / "mine.jsonl", prompts[:5]), []
    read = Task.read
    monkeypatch.setattr(Task, "read", lambda *call: reads.append(call) or read(*call))
    assert [len(shared_out(get("countdown4"), file, split)) for split in ("train", "dev", "train")] == [4, 1, 4]
    assert len(reads) == 1
    written(tmp_path / "mine.jsonl", prompts)
    assert [len(shared_out(get("countdown4"), file, split)) for split in ("train", "dev")] == [6, 2]
    assert len(reads) == 2


def test_one_prompt_cannot_be_shared_out(tmp_path):
    stream = get("countdown4").generate("train", seed=1)
    file = written(tmp_path / "one.jsonl", [next(stream).prompt])
    with pytest.raises(
        ValueError, match=r"must hold a prompt to fit on and one to judge by beside those of the test split, got 1$"
    ):
        shared_out(get("countdown4"), file, "dev")


def test_prompts_become_left_padded_canvases_and_responses_references(groups, tasks, example):
    some = [example("0", "01"), example("110", "0" * 16), example("1", ""), example("1", "0" * 17)]
    found = encode(groups, tasks(16, 8), some)
    assert found.tokens[:, :3].tolist() == [[0, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 1]]
    assert (
        found.attention_mask[:, :4].tolist()
        == [[False, False, True, True], [True] * 4] + [[False, False, True, True]] * 2
    )
    assert found.reference[0].tolist() == [-1] * 3 + [0, 1] + [0] * 14  # filled up with EOS, or 0 where there is none
    assert found.reference[1, 3:].tolist() == [0] * 16
    assert (found.reference[2:] == -1).all()  # none given; too long


def test_a_text_ends_at_the_first_eos(groups):
    groups.eos_id = 1
    assert decode_text(groups, torch.tensor([0, 0, 1, 0, 1])) == "00"
    assert decode_text(groups, torch.tensor([0, 0])) == "00"
