"""The command: ends with a table, goes on where it was cut off, shares its folder, and refuses bad input before torch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from decoding.files.folder_lock import LOCK
from tests.complaint import complaint
from tests.train.clock.conftest import ARMS
from train.clock.__main__ import clock
from train.clock.turns import Deadline, OutOfTime, claim
from train.commands.command_line import run, shipped

ROOT = Path(__file__).parents[3]


def started(arguments: list[str]) -> subprocess.Popen:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    where = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-m", "train.clock", *arguments], cwd=ROOT, env=where, **streams)


def found_in(folder: Path, task: str = "countdown3") -> dict:
    return json.loads((folder / task / "results.json").read_text())


def test_it_ends_with_a_table_and_a_second_call_decodes_nothing(tmp_path, config, capsys):
    arguments = config(model=None, num_dev=2)
    run(clock, arguments)
    first = capsys.readouterr().out
    results, written = found_in(tmp_path / "out"), json.loads((tmp_path / "out" / "clock.json").read_text())
    (task,) = written["tasks"]
    assert first.count(" dev prompts: ") == len(results["dev"])
    assert first.count(" warm in ") == len(results["clocked"]) == len(task["clocked"]) + 1
    row = task["clocked"][0]
    assert {
        "accuracy",
        "rounds",
        "sequence_forwards",
        "looks",
        "ms",
        "ms_a_round",
        "fallbacks",
        "warm_seconds",
    } <= row.keys()
    assert (row["batch"], row["n"], len(row["seconds"]), row["repeats"]) == (2, 4, 2, 2)
    assert min(row["run_seconds"]) == pytest.approx(sum(row["seconds"]))
    assert [one["batch"] for one in task["comparisons"]] == [2, 1]
    assert task["place"]["device"].startswith("cpu")
    assert (tmp_path / "out" / "table.md").read_text() in first
    run(clock, [*arguments, "--table"])
    run(clock, arguments)
    again = capsys.readouterr().out
    assert not any(said in again for said in (" dev prompts: ", " warm in "))
    assert found_in(tmp_path / "out") == results
    assert not list((tmp_path / "out").rglob(LOCK))


def test_arms_without_a_head_are_left_out_by_name(tmp_path, config, capsys):
    run(clock, config(num_dev=1, num_prompts=1))
    assert "left out for want of a scoring head: look\n" in capsys.readouterr().out
    assert found_in(tmp_path / "out")["chosen"].keys() == {"threshold"}
    assert found_in(tmp_path / "out")["chosen"]["threshold"]["value"] == 0.1


def test_a_terminated_call_goes_on_to_the_same_choice(tmp_path, config, capsys):
    arguments = config(num_prompts=8, alone=8)
    run(clock, [*arguments, "--num_prompts", "1", "--alone", "1", "--repeats", "1", "--out", str(tmp_path / "whole")])
    process = started(arguments)
    while not (tmp_path / "out" / "countdown3" / "results.json").is_file():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    told = process.communicate()[1]
    assert process.returncode == 143, told
    assert f"terminated, what is done is kept in {tmp_path / 'out'}: the same command goes on from there" in told
    begun = found_in(tmp_path / "out")
    assert begun["dev"]
    capsys.readouterr()
    run(clock, arguments)
    assert "dev prompts: sequential" not in capsys.readouterr().out
    assert found_in(tmp_path / "out")["chosen"] == found_in(tmp_path / "whole")["chosen"]
    assert found_in(tmp_path / "out")["dev"].items() >= begun["dev"].items()


def test_two_processes_share_the_tasks(tmp_path, config, capsys):
    arguments = config("countdown3,countdown4", arms="threshold", num_dev=2, num_prompts=2)
    other = started(arguments)
    while not (tmp_path / "out").is_dir():  # it has loaded what it needs, and begins
        assert other.poll() is None, other.communicate()
        time.sleep(0.02)
    run(clock, arguments)
    told = [capsys.readouterr().out, *other.communicate()]
    assert other.returncode == 0, told
    lines = [line for out in told[:2] for line in out.splitlines() if "dev prompts: " in line or " warm in " in line]
    assert len({line.partition(" ms ")[0] for line in lines}) == len(lines)  # nothing ran twice
    written = json.loads((tmp_path / "out" / "clock.json").read_text())
    assert [len(task["comparisons"]) for task in written["tasks"]] == [2, 2]


def holder_of(folder: Path) -> subprocess.Popen:
    """Another process that holds a folder until it is told to end."""
    code = "import sys; from pathlib import Path; from decoding.files.folder_lock import hold_folder\n"
    code += "with hold_folder(Path(sys.argv[1])): print(1, flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], cwd=ROOT, **pipes)
    process.stdout.readline()
    return process


def test_a_claim_ends_with_its_process(tmp_path):
    other = holder_of(tmp_path)
    with claim(tmp_path) as mine:
        assert not mine
    other.kill()
    other.communicate()
    with claim(tmp_path) as mine:
        assert mine


def test_a_task_that_another_process_holds_is_left_to_it(tmp_path, config, capsys):
    held = tmp_path / "out" / "countdown3"
    other = holder_of(held)
    run(clock, config("countdown3,countdown4", arms="threshold", num_dev=2, num_prompts=2))
    assert "left to another process: countdown3\n" in capsys.readouterr().out
    other.communicate(b"\n")
    assert not (held / "results.json").is_file()
    assert found_in(tmp_path / "out", "countdown4")["clocked"]


def test_the_time_ends_the_work_and_what_is_done_is_kept(tmp_path, config, capsys, monkeypatch):
    checks = iter(range(10**6))

    def check(deadline):
        if next(checks) == 4:
            raise OutOfTime

    monkeypatch.setattr(Deadline, "check", check)
    run(clock, [*config(), "--minutes", "5"])
    said = capsys.readouterr().out
    assert "5 minutes are over: what is done is kept in" in said
    assert len(found_in(tmp_path / "out")["dev"]) == 2
    assert (tmp_path / "out" / "table.md").is_file()


def test_the_clock_stops_where_it_is_told():
    Deadline(None).check()
    Deadline(1.0).check()
    over = Deadline(1e-9)
    time.sleep(0.01)
    with pytest.raises(OutOfTime):
        over.check()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--num_dev", "0"), "num_dev must be at least 1, got 0"),
        (("--alone", "0"), "alone must be at least 1, got 0"),
        (("--slack", "1"), "slack must lie in [0, 1), got 1.0"),
        (("--minutes", "0"), "minutes must be above 0, got 0.0"),
        (("--task", "gsm8k"), "task must have a generator to draw prompts from, got gsm8k"),
        (("--task", "sudoku,sudoku"), "task must differ, got sudoku twice"),
        (("--arms", "thresh"), "arms must be among sequential, threshold, look, got 'thresh'"),
        (("--first", "thresh"), "first must be among sequential, threshold, look, got 'thresh'"),
        (("--arms", "look"), "arm look must have a scoring head"),
        (("--model", "nowhere"), "model must be a checkpoint folder or a hub id, got 'nowhere'"),
        (("--head", "nowhere"), "head must be a folder with head.safetensors, got nowhere"),
        (("--table",), "out must be a folder with results of a task, got none in "),
    ],
)
def test_bad_input_is_told_in_one_sentence(tmp_path, config, capsys, arguments, told):
    assert told in complaint(capsys, clock, *config(), *arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tune": {"looks": [1, 2]}, "settings": {}}, "tune of arm look must be empty"),
        ({"head": "elsewhere"}, "head of arm look must be left to the command, got 'elsewhere'"),
        ({"kind": "headless"}, "kind of arm look must be learned, for it reads a head, got headless"),
        (
            {"policy": "risk-sum", "settings": {}},
            "kind of arm look must be headless, for it reads neither head nor cascade",
        ),
        ({"settings": {"looks": -1}}, "in arm look"),
    ],
)
def test_an_arm_is_what_it_says(config, capsys, changes, told):
    catalogue = [*ARMS[:2], {**ARMS[2], **changes}]
    assert told in complaint(capsys, clock, *config(catalogue=catalogue, model=None))


def test_results_of_another_call_are_not_gone_on_with(tmp_path, config, capsys):
    run(clock, [*config(arms="threshold"), "--num_dev", "1", "--num_prompts", "1"])
    capsys.readouterr()
    said = complaint(capsys, clock, *config())
    assert "out must be a folder of results with num_dev 4, got 1 in " in said
    file = tmp_path / "out" / "countdown3" / "results.json"
    file.write_text(json.dumps({"how": {}}))
    assert "must hold chosen, clocked, dev, environment, how, place, got how" in complaint(capsys, clock, *config())


def test_slow_arms_run_as_often_as_fast_ones(monkeypatch):
    from train.clock import decodes

    made = iter([(9.0,), (20.0, 1.0), (11.0, 1.0), (30.0, 1.0)])
    decoded = lambda *_: decodes.Decoded((True,), 1.0, 1.0, 0.0, 1, next(made), 0.0, 0)  # noqa: E731
    monkeypatch.setattr(decodes, "decode", decoded)
    monkeypatch.setattr(decodes, "now", lambda device: 0.0)
    subject = Mock(spec=decodes.Subject, denoiser=Mock())
    row = decodes.clocked(subject, ["prompt"], 1, repeats=3, deadline=Deadline(None))
    assert (row["run_seconds"], row["seconds"], row["repeats"]) == ([21.0, 12.0, 31.0], [11.0, 1.0], 3)


def test_bad_input_is_judged_without_torch():
    code = "import sys, train.clock.__main__; print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_prompts_are_drawn_once(tmp_path, config, capsys):
    run(clock, [*config(), "--draw"])
    (file,) = (tmp_path / "out" / "prompts").iterdir()
    assert file.name == "countdown3-4-4-0.json"
    assert capsys.readouterr().out == ""


def test_gsm8k_takes_its_own_base():
    from train.clock.call import base_of

    if not shipped("checkpoints/gsm-12m").is_dir():
        pytest.skip("no checkpoints/gsm-12m here")
    assert base_of("gsm8k-renumbered", None, None).model == str(shipped("checkpoints/gsm-12m"))
    assert base_of("gsm8k-renumbered", None, None).head == str(shipped("checkpoints/gsm-12m-head"))
    assert base_of("sudoku", None, None).head == str(shipped("checkpoints/reason-7m-head"))


def test_arms_named_first_come_first_in_the_order_named():
    from decoding.comparison.arms import Arm
    from train.clock.call import in_passes

    arms = [Arm(name, "headless", "random") for name in "abcd"]
    passes = in_passes(arms, arms, "d, b")
    assert [[arm.name for arm in some] for some in passes] == [["d", "b"], ["a", "c"]]
    assert [len(some) for some in in_passes(arms, arms, None)] == [4]
