"""What a fit refuses, in one sentence, and what it estimates before it starts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import train.commands.train
import train.head.estimate
import train.traces.collection
from decoding.comparison.arms import Arm
from tests.train.head.small_run import SMALL, job_of, written
from train.commands.command_line import run
from train.head.estimate import estimate_run
from train.head.settings import TaskRun

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(LeafSpec|num_workers|enable_nested_tensor|number of training batches)"
)


def test_an_estimate_scales_a_probe_up(base, tmp_path):
    ticks = iter(range(100))
    head_run = job_of(
        base,
        tmp_path,
        tasks={
            "countdown3": TaskRun(prompts=27, dev_prompts=3, block_length=8),
            "lists": TaskRun(prompts=5, dev_prompts=1),
        },
    )
    lines = estimate_run(head_run, seconds=1.0, clock=lambda: next(ticks)).splitlines()
    assert lines[0].startswith("countdown3: 30 prompts, ")
    assert int(re.search(r"(\d+) gain labels, (\d+) risk labels", lines[0])[1]) > 30
    assert lines[1].startswith("lists: 6 prompts, ")
    assert lines[2].startswith("collection: 36 prompts, ")
    assert [line.partition(":")[0] for line in lines[3:]] == ["whole run", "memory", "disk", "download"]
    assert not list(tmp_path.iterdir())


def test_the_command_prints_its_estimate(command, base, tmp_path, capsys):
    config = written(tmp_path, tasks={"countdown3": {"prompts": 2, "dev_prompts": 1}})
    run(
        command,
        ["--config", config, "--model", str(base), "--out", str(tmp_path / "run"), "--device", "cpu", "--estimate"],
    )
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in printed][:2] == ["countdown3", "collection"]
    assert {"whole run", "download"} <= {line.partition(":")[0] for line in printed}
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tasks": {"suduko": {}}}, "task must be one of sudoku, "),
        ({"tasks": {}}, "tasks must name at least one task, got none"),
        ({"tasks": {"lists": {"block_length": 5}}}, "block_length must divide gen_length 32 of task lists, got 5"),
        ({"tasks": {"lists": {"block_length": 0}}}, "block_length must be at least 1, got 0"),
        ({"tasks": {"lists": {"prompts": 0}}}, "prompts must be at least 1, got 0"),
        ({"tasks": {"lists": {"prompts_file": "none.jsonl"}}}, "prompts_file of task lists must be a file, got 'none.jsonl'"),
        ({"fitting": {"variants": ["lora", "deep"]}}, "variants must be among linear, features, hidden, lora, "),
        ({"fitting": {"variants": ["shuffled"]}}, "variants must begin with the head that is saved, got shuffled"),
        ({"fitting": {"variants": []}}, "variants must begin with the head that is saved, got none"),
        ({"fitting": {"width": 10}}, "width must be a multiple of 4, got 10"),
        ({"fitting": {"epochs": 0}}, "epochs must be at least 1, got 0"),
        ({"fitting": {"reach": 0}}, "reach must be at least 1, got 0"),
        ({"fitting": {"gigabytes": float("nan")}}, "gigabytes must be at least 0, got nan"),
        ({"fitting": {"dropout": 1.0}}, "dropout must lie in [0, 1), got 1.0"),
        ({"fitting": {"blocks": 3}}, "blocks must be at most the base's 2, got 3"),
        ({"fitting": {"objective": {"target": "both"}}}, "target must be gain, eq7 or worth, got 'both'"),
        ({"fitting": {"objective": {"temperature": 0.0}}}, "temperature must be above 0, got 0.0"),
        ({"labelling": {"labelled": 9}}, "labelled must be at most states_per_prompt 4, got 9"),
        ({"drivers": {}}, "drivers must name at least one policy, got none"),
        ({"drivers": {"mine": {"threshold": 0.5}}}, "driver mine must name its policy, got "),
        ({"drivers": {"mine": {"policy": "beam"}}}, "policy of driver mine must be one of sequential, "),
        ({"drivers": {"mine": {"policy": "threshold", "limit": 1}}}, "policy threshold must be among threshold, got limit"),
        ({"drivers": {"mine": {"policy": "learned"}}}, "policy learned must have a model loaded with head=FOLDER"),
        ({"beam": {"treshold": 0.5}}, "settings of policy ete must be among "),
        ({"tasks": {"lists": {"beam": {"branches": "x"}}}}, "branches must be a whole number from "),
        ({"beam": {"threshold": 1.5}}, "threshold must lie in (0, 1], got 1.5"),
        ({"cascade": {"blocks": 9}}, "blocks must be at most the base's 2, got 9"),
        ({"cascade": {"drivers": [{"policy": "ete"}]}}, "a driver must commit on one canvas a round without draws, got "),
        ({"num_prompts": 0}, "num_prompts must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"catalogue": SMALL["catalogue"][1:]}, "arms must include the reference sequential, got learned"),
        ({"model": "checkpoints/nothing"}, "model must be a checkpoint folder or a hub id, got 'checkpoints/nothing'"),
    ],
)  # fmt: skip
def test_bad_input_is_told_in_one_sentence(command, base, tmp_path, capsys, changes, sentence):
    settings = {"model": str(base), "device": "cpu", **changes}
    if "blocks" in changes.get("fitting", {}):
        settings["tasks"] = {"countdown3": {"prompts": 1, "dev_prompts": 1}}
    with pytest.raises(SystemExit) as ended:
        run(command, ["--config", written(tmp_path, **settings), "--out", str(tmp_path / "run")])
    assert ended.value.code == 2
    sentences = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train.py: ")]
    assert len(sentences) == 1
    assert sentence in sentences[0]
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert not list((tmp_path / "run").glob("*.safetensors"))  # no head was fitted


def test_a_job_is_judged_before_torch_is_needed():
    with pytest.raises(ValueError, match=r"^names of arms must differ, got sequential twice$"):
        job_of(Path("x"), Path("y"), model=None, catalogue=(Arm("sequential", "headless", "sequential"),) * 2)
    with pytest.raises(ValueError, match=r"^settings of policy ete must be among .*, got nosuch"):
        job_of(Path("x"), Path("y"), model=None, tasks={"lists": TaskRun(beam={"nosuch": 3})})
    assert train.head.estimate.PROBE_SECONDS == 30


@pytest.mark.parametrize(
    ("left_out", "sentence"),
    [
        ("lists", "leave_out must be among the run's tasks multiplication, countdown3, got 'lists'"),
        ("countdown3, multiplication", "leave_out must leave a task to fit on, got all of them, countdown3, mult"),
    ],
)
def test_tasks_that_cannot_be_left_out_are_told_in_one_sentence(command, tmp_path, capsys, left_out, sentence):
    with pytest.raises(SystemExit):
        run(command, ["--config", written(tmp_path), "--leave_out", left_out, "--out", str(tmp_path / "run")])
    assert sentence in capsys.readouterr().err
