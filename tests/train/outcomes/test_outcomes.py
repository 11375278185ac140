"""A table of outcomes: made in pieces, gone on with, and packed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from decoding.comparison.arms import Arm
from decoding.comparison.replay.table import MISSING, OutcomeTable
from train.commands.command_line import shipped
from train.outcomes.__main__ import outcomes
from train.outcomes.jobs import How, Worker, frozen, jobs_of, pack, read_done
from train.outcomes.pool import draw_stream, merge
from train.tasks import Example

SEQUENTIAL = Arm("sequential", "headless", "sequential")
THRESHOLD = Arm("threshold", "headless", "threshold", "threshold", (0.99, 0.5))


def test_pools_take_one_prompt_of_each_stream_in_turn():
    streams = [[Example(name, "") for name in names] for names in ("ab", "ac", "def")]
    assert [example.prompt for example in merge(streams, 5)] == ["a", "d", "b", "c", "e"]
    first = draw_stream("countdown3", 4, 1000)
    assert len({example.prompt for example in first}) == 4
    assert first == draw_stream("countdown3", 4, 1000)
    assert first != draw_stream("countdown3", 4, 1001)


def test_an_arm_must_have_one_point_of_each_setting():
    arm = Arm("lopa", "headless", "lopa", "threshold", (0.9,), tune={"branches": [3]}, tune_for={"lists": {}})
    assert frozen(arm, "sudoku").settings == {"branches": 3}
    assert frozen(arm, "lists").settings == {}
    with pytest.raises(ValueError, match="tune of arm lopa on sudoku must hold one value of each setting"):
        frozen(Arm("lopa", "headless", "lopa", "threshold", (0.9,), tune={"branches": [2, 3]}), "sudoku")


def test_pieces_are_run_packed_and_gone_on_with(tmp_path):
    pool = draw_stream("countdown3", 5, 1)
    how = How(str(shipped("checkpoints/reason-7m")), None, "float32", False, 4, 0)
    worker = Worker.start(how, {"countdown3": pool}, "cpu")
    jobs = [job for arm in (SEQUENTIAL, THRESHOLD) for job in jobs_of("countdown3", arm, 5, slice_size=3)]
    assert [(job.start, job.stop) for job in jobs] == [(0, 3), (3, 5), (0, 3), (0, 3), (3, 5), (3, 5)]
    done = {job.name: worker.run(job) for job in jobs[:4]}
    packed = pack("countdown3", [SEQUENTIAL, THRESHOLD], done, jobs, {})
    assert [cell.value for cell in packed.cells] == [None, 0.99, 0.5]
    assert packed.columns["rounds"][0].tolist() == [24] * 5
    assert (packed.columns["rounds"][1:, 3:] == MISSING).all()
    assert (packed.columns["rounds"][1, :3] >= packed.columns["rounds"][2, :3]).all()
    assert packed.columns["answer"][0].tolist() == [0] * 5  # the careful decode's own text
    for name, table in done.items():
        np.save(tmp_path / name, table)
    assert read_done(tmp_path, jobs).keys() == done.keys()


def test_the_command_writes_a_table(tmp_path, capsys):
    """Two processes: one draws, one decodes."""
    outcomes(
        [SEQUENTIAL, THRESHOLD],
        "countdown3",
        num_prompts=4,
        num_rivals=2,
        whole="sequential",
        streams=1,
        slice_size=4,
        out=str(tmp_path),
        devices="cpu",
    )
    assert "countdown3: 3 of 3 pieces, 4 prompts" in capsys.readouterr().out
    table = OutcomeTable.load(tmp_path / "countdown3.npz")
    assert (table.columns["right"] != MISSING).sum(1).tolist() == [4, 2, 2]
    assert json.dumps(dict(table.about))


def test_numbers_are_judged_before_anything_is_loaded():
    for name in ("num_prompts", "num_rivals", "streams", "slice_size", "workers", "batch_size"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            outcomes([SEQUENTIAL], "countdown3", **{name: 0})
