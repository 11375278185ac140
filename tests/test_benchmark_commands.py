"""Benchmarks through the commands: prompts from files, permission to run code, prompts that are too long, cuts to a budget."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import compare as compare_command
import generate as generate_command
import models
import train.commands.train as job_module
from decoding.comparison.arms import Arm
from tests.fit_request import job_of
from train.commands.closing_comparison import compare_call
from train.commands.command_line import run, shipped, with_flags
from train.commands.compare import check_compare, run_compare
from train.commands.generate import check_generate
from train.commands.train import run_train
from train.head.settings import TaskRun
from train.head.task_choice import only
from train.tasks import get
from train.tasks.problems import leave_out_long

ARMS = [Arm("sequential", "headless", "sequential"), Arm("threshold", "headless", "threshold", "threshold", (0.9,))]
ROW = "row must be one of the prompts in {file}, counted from 1, got "
SIZE = {"num_prompts": 4, "num_dev": 4}


@pytest.fixture
def file(tmp_path) -> Path:
    """Forty questions."""
    path = tmp_path / "questions.jsonl"
    path.write_text(
        "".join(json.dumps({"question": f"How much is {n}?", "answer": f"#### {n}"}) + "\n" for n in range(40))
    )
    return path


def complaint(capsys, function, *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        run(function, list(arguments))
    assert ended.value.code == 2
    return capsys.readouterr().err.strip()


def test_dev_and_test_prompts_come_from_one_file(file, tiny):
    (checked,) = check_compare(ARMS, None, "gsm8k", prompts=str(file), model=str(tiny), **SIZE).tasks
    task, problems = get("gsm8k"), checked.problems
    assert (len(problems.dev), len(problems.test)) == (1, 4)  # a dev prompt for four test prompts
    assert task.split_of(problems.dev[0]) == "dev"
    order = [example.prompt for example in task.read(file) if example.prompt not in problems.dev]
    assert list(problems.test) == order[:4]
    assert checked.check(problems.test[0], "#### 0") != checked.check(problems.test[0], "#### 99")
    assert (problems.gen_length, problems.block_length, problems.references) == (256, 32, {})


def test_what_a_head_was_fitted_on_is_not_compared_on(file, tiny):
    (checked,) = check_compare(
        ARMS, None, "gsm8k", prompts={"gsm8k": str(file)}, model=str(tiny), num_prompts=40, num_dev=40
    ).tasks
    splits = [get("gsm8k").split_of(prompt) for prompt in checked.problems.test]
    assert set(splits) == {"test"}


@pytest.mark.parametrize("own", [True, False])
def test_a_head_that_is_named_may_have_seen_the_file(file, tiny, tmp_path, own):
    folder = tmp_path / "head"
    folder.mkdir()
    (folder / "head.safetensors").touch()
    learned = Arm("learned", "learned", "learned", "risk_bound", (0.1,), head=None if own else str(folder))
    options = {"prompts": str(file), "model": str(tiny), "head": str(folder) if own else None}
    (checked,) = check_compare([*ARMS, learned], None, "gsm8k", num_prompts=40, num_dev=40, **options).tasks
    task = get("gsm8k")
    assert {task.split_of(prompt) for prompt in checked.problems.dev} == {"dev"}
    order = [example.prompt for example in task.read(file) if task.split_of(example.prompt) == "test"]
    assert list(checked.problems.test) == order


def test_a_file_of_one_row_and_rows_without_answers_are_refused(tmp_path, tiny):
    path = tmp_path / "few.jsonl"
    path.write_text('{"question": "How much is 1?", "answer": "#### 1"}\n')
    with pytest.raises(
        ValueError, match="prompts must hold prompts of task gsm8k for dev and for test, got 1 and 0 in"
    ):
        check_compare(ARMS, None, "gsm8k", prompts=str(path), model=str(tiny), **SIZE)
    path.write_text('{"question": "How much is 1?"}\n{"question": "How much is 2?"}\n')
    with pytest.raises(ValueError, match="prompts of task gsm8k must come with answers to be judged, got 2 without"):
        check_compare(ARMS, None, "gsm8k", prompts=str(path), model=str(tiny), **SIZE)
    path.write_text('{"prompt": "How much is 1?"}\n')
    with pytest.raises(ValueError, match="prompts of task words must come with answers to be judged, got 1 without"):
        check_compare(ARMS, None, "words", prompts=str(path), model=str(tiny), **SIZE)


def test_lengths_may_be_shortened_and_must_fit(file, tiny):
    options = {"prompts": str(file), "model": str(tiny), **SIZE}
    (checked,) = check_compare(ARMS, None, "gsm8k", gen_length=64, **options).tasks
    assert (checked.problems.gen_length, checked.problems.block_length) == (64, 32)
    with pytest.raises(ValueError, match="block_length must divide gen_length 40 of task gsm8k, got 32"):
        check_compare(ARMS, None, "gsm8k", gen_length=40, **options)
    for length in (0, -32):
        with pytest.raises(ValueError, match=f"gen_length of task gsm8k must be at least 1, got {length}"):
            check_compare(ARMS, None, "gsm8k", gen_length=length, **options)
    with pytest.raises(ValueError, match="block_length must divide gen_length 256 of task gsm8k, got 0"):
        check_compare(ARMS, None, "gsm8k", block_length=0, **options)


def test_prompts_that_are_too_long_are_left_out_and_counted(file, tiny, tmp_path):
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[0]["question"] *= 20
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (checked,) = check_compare(ARMS, None, "gsm8k", prompts=str(file), model=str(tiny), gen_length=64, **SIZE).tasks
    denoiser = models.load(tiny, device="cpu")
    kept, long = leave_out_long(checked, denoiser)
    assert (long, len(kept.problems.test)) == (1, 3)
    denoiser.max_length = 64
    with pytest.raises(
        ValueError, match="prompts of task gsm8k must leave 64 of the model's 64 positions, got 0 dev and 0 test"
    ):
        leave_out_long(checked, denoiser)


def test_compare_says_how_many_prompts_it_left_out(capsys, file, tiny, tmp_path):
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[0]["question"] *= 40
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = tmp_path / "small.yaml"
    config.write_text("catalogue:\n- {name: sequential, kind: headless, policy: sequential}\n")
    arguments = [
        "--config",
        str(config),
        "--task",
        "gsm8k",
        "--prompts",
        str(file),
        "--num-prompts",
        "3",
        "--gen_length",
        "32",
    ]
    run(compare_command.compare, [*arguments, "--model", str(tiny), "--out", str(tmp_path / "out"), "--device", "cpu"])
    printed = capsys.readouterr().out
    assert printed.startswith("## gsm8k, 2 test prompts")
    assert "left out of gsm8k: 1 prompts too long for the model" in printed


@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_commands_refuse_to_run_code_without_the_flag(capsys, name, tmp_path, tiny):
    refused = f"run_code must be true for task {name}, whose checker runs the model's code here, got false"
    path = tmp_path / "code.jsonl"
    path.write_text('{"prompt": "def f():", "entry_point": "f", "test": "x", "test_list": ["assert f()"]}\n')
    arguments = ["--task", name, "--prompts", str(path), "--model", str(tiny)]
    config = ["--config", str(shipped("configs/compare/default.yaml")), "--out", str(tmp_path / "out")]
    assert complaint(capsys, compare_command.compare, *config, *arguments) == f"compare.py: {refused}"
    assert complaint(capsys, generate_command.generate, *arguments) == f"generate.py: {refused}"
    with pytest.raises(ValueError, match=refused):
        job_of(tmp_path, tasks={name: TaskRun(prompts_file=str(path))})
    assert check_generate("def f():", name, "threshold", {}, model=str(tiny)).example.answer == ""


def test_generate_decodes_a_row_of_a_file_and_judges_it(capsys, file, tiny):
    arguments = ["--task", "gsm8k", "--prompts", str(file), "--row", "3", "--policy", "threshold", "--gen_length", "32"]
    run(generate_command.generate, [*arguments, "--model", str(tiny), "--device", "cpu", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["accepted"] in (True, False)
    assert facts["settings"]["block_length"] == 32
    run(
        generate_command.generate,
        ["--task", "gsm8k", "--prompt", "How much is 3?", *arguments[6:], "--model", str(tiny)],
    )
    assert "says the checker" not in capsys.readouterr().out  # nothing is known of the answer


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--prompt", "1", "--prompts", "x.jsonl", "--task", "gsm8k"), "prompt or prompts must be given, got both"),
        (("--prompts", "hub"), "prompts must come with a task, got hub alone"),
        (("--prompts", "x.csv"), "prompts must be a file that ends in .jsonl, .jsonl.gz, .txt, .txt.gz, - or hub, got x.csv"),
        (("--prompts", "{file}", "--task", "gsm8k", "--row", "41"), ROW + "41"),
        (("--prompts", "{file}", "--task", "gsm8k", "--row", "0"), ROW + "0"),
    ],
)  # fmt: skip
def test_generate_refuses_rows_that_are_not_there(capsys, file, arguments, sentence):
    filled = [one.replace("{file}", str(file)) for one in arguments]
    assert (
        complaint(capsys, generate_command.generate, *filled) == f"generate.py: {sentence.replace('{file}', str(file))}"
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"tasks": {"gsm8k": TaskRun()}},
            "prompts_file of task gsm8k must be a file or hub, for it has no generator, got none",
        ),
        (
            {"tasks": {"gsm8k": TaskRun(prompts_file="none.jsonl")}},
            "prompts_file of task gsm8k must be a file, got 'none.jsonl'",
        ),
        *(
            ({"budget_hours": h}, f"budget_hours must be a finite number above 0, got {h}")
            for h in (0.0, math.inf, math.nan)
        ),
    ],
)
def test_jobs_that_cannot_be_done_are_refused(tmp_path, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        job_of(tmp_path, **changes)


def test_the_command_line_may_name_the_task_of_a_job():
    tasks = {"lists": TaskRun(prompts=7), "gsm8k": TaskRun(prompts=9)}
    assert only(tasks, None, None) == tasks
    assert only(tasks, "gsm8k", "x.jsonl") == {"gsm8k": TaskRun(prompts=9, prompts_file="x.jsonl")}
    assert only(tasks, "math500", "x.jsonl") == {"math500": TaskRun(prompts_file="x.jsonl")}
    with pytest.raises(ValueError, match=r"prompts must come with a task, got x\.jsonl alone"):
        only(tasks, None, "x.jsonl")


def test_the_closing_comparison_takes_the_lengths_and_the_cache_of_every_task(tmp_path, tiny):
    own = Arm("own", "headless", "threshold", settings={"use_cache": "none"})
    tasks = {
        "lists": TaskRun(block_length=8, use_cache="dual"),
        "words": TaskRun(gen_length=32, block_length=16, use_cache="prefix"),
        "addition": TaskRun(),
    }
    call = compare_call(job_of(tmp_path, tasks=tasks, catalogue=(ARMS[0], own), model=str(tiny)), None)
    caches = {name: [arm.settings["use_cache"] for arm in call.arms_on(name)] for name in tasks}
    assert caches == {"lists": ["dual", "none"], "words": ["prefix", "none"], "addition": ["none", "none"]}
    lengths = {one.problems.task: (one.problems.gen_length, one.problems.block_length) for one in call.tasks}
    assert lengths["lists"] == (get("lists").gen_length, 8) != (get("lists").gen_length, get("lists").block_length)
    assert lengths["words"] == (32, 16)
    assert lengths["addition"] == (get("addition").gen_length, get("addition").block_length)


def test_tasks_of_one_comparison_run_behind_their_own_caches(tmp_path, tiny):
    caches = {"lists": "dual", "words": "none"}
    size = {"num_prompts": 2, "num_dev": 2, "gen_length": 8, "block_length": 8}
    call = check_compare(ARMS[:1], None, "lists,words", model=str(tiny), use_cache=caches, **size)
    run_compare(call, out=str(tmp_path), batch_size=4, device="cpu")
    cells = {}
    for name in caches:
        lines = (tmp_path / f"{name}.jsonl").read_text().splitlines()[1:]
        cells[name] = {json.loads(line)["cell"] for line in lines}
        assert cells[name] == {arm.cells[0].key for arm in call.arms_on(name)}
    assert len(cells["lists"] | cells["words"]) == 2


@pytest.mark.parametrize(
    ("answers", "prompts", "sentence"),
    [
        (False, 4, "prompts of task gsm8k must come with answers to be judged, got"),
        (True, 64, "must hold 64 prompts of the train split, got"),
    ],
)
def test_a_run_whose_file_will_not_do_ends_before_the_base_is_read(
    file, tiny, tmp_path, monkeypatch, answers, prompts, sentence
):
    if not answers:
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps({"question": row["question"]}) + "\n" for row in rows))
    monkeypatch.setattr(job_module, "load_base", lambda head_run: 1 / 0)
    tasks = {"gsm8k": TaskRun(prompts=prompts, dev_prompts=1, prompts_file=str(file))}
    learned = Arm("learned", "learned", "learned", "risk_bound", (0.1,))
    with pytest.raises(ValueError, match=sentence):
        run_train(job_of(tmp_path, model=str(tiny), tasks=tasks, catalogue=(*ARMS, learned)))


def test_a_run_with_a_budget_may_ask_for_more_than_the_file_holds(file, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(job_module, "load_base", lambda head_run: 1 / 0)
    tasks = {"gsm8k": TaskRun(prompts=64, dev_prompts=1, prompts_file=str(file))}
    with pytest.raises(ZeroDivisionError):
        run_train(job_of(tmp_path, model=str(tiny), tasks=tasks, catalogue=tuple(ARMS), budget_hours=1.0))


def test_options_may_be_spelt_with_dashes():
    def command(budget_hours: float = 0, quick_look: bool = False) -> None: ...

    assert with_flags(command, ["--budget-hours", "2", "--quick-look"]) == ["--budget_hours", "2", "--quick_look=true"]
    assert with_flags(command, ["--budget-hours=-2"]) == ["--budget_hours=-2"]
