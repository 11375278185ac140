"""Benchmarks as tasks: their files and the hub, how the model is asked, splits, and permission to run code."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from train.tasks import BENCHMARKS, TASKS, get, require_permission
from train.tasks.benchmarks.humaneval import program_of
from train.tasks.benchmarks.math500 import final_answer
from train.tasks.hub import Hub
from train.tasks.task import Example

SHARED = Path(__file__).parents[4] / "shared" / "data"
ROWS = {
    "gsm8k": {"question": "How many legs have 4 cats?", "answer": "4 * 4 = <<4*4=16>>16\n#### 16"},
    "math500": {"problem": "What is $1+1$?", "solution": "It is $\\boxed{2}$.", "answer": "2", "subject": "Algebra", "level": 1},
    "aime24": {"ID": "2024-I-1", "Problem": "Find m+n.", "Solution": "Long.", "Answer": 33},
    "aime25": {"id": "0", "problem": "Find m+n.", "answer": "033"},
    "humaneval": {"task_id": "x/0", "prompt": "def one():\n    ...\n", "entry_point": "one", "canonical_solution": "    return 1\n",
                  "test": "def check(candidate):\n    assert candidate() == 1\n"},
    "mbpp": {"task_id": 2, "text": "Write one.", "code": "def one():\r\n  return 1", "test_list": ["assert one() == 1"] * 4,
             "test_setup_code": "", "challenge_test_list": []},
    "mmlu-pro": {"question_id": 1, "question": "6 * 7?", "options": ["40", "42", "N/A"], "answer": "B", "answer_index": 1,
                 "category": "math"},
    "text": {"prompt": "Tell me a story."},
}  # fmt: skip
ASKED = {
    "gsm8k": "Q: How many legs have 4 cats?\nA: Let's think step by step.",
    "math500": "Problem:\nWhat is $1+1$?\nPlease reason step by step, and put your final answer within \\boxed{}.\n\nSolution:",
    "aime24": "Question: Find m+n.\nPlease reason step by step, and put your final answer within \\boxed{}.\nAnswer:",
    "humaneval": "Write a solution to the following problem and make sure that it passes the tests:\n"
    "```python\ndef one():\n    ...\n```\n",
    "mbpp": "You are an expert Python programmer, and here is your task:\nWrite one.\nYour code should pass these tests:\n"
    "assert one() == 1\nassert one() == 1\nassert one() == 1\n",
    "mmlu-pro": "The following are multiple choice questions (with answers) about math. Think step by step and then finish your "
    'answer with "the answer is (X)" where X is the correct letter choice.\n\nQuestion:\n6 * 7?\nOptions:\nA. 40\nB. 42\n'
    "Answer: Let's think step by step.",
    "text": "Tell me a story.",
}


def written(folder: Path, name: str, *rows: object) -> Path:
    file = folder / f"{name}.jsonl.gz"
    file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return file


@pytest.mark.parametrize("name", BENCHMARKS)
def test_official_rows_become_examples(name, tmp_path):
    task = get(name, run_code=True)
    (example,) = task.read(written(tmp_path, name, ROWS[name]))
    assert example.prompt == ASKED.get(name, ASKED["aime24"])
    assert task.judges(example) == (name != "text")
    assert (task.gen_length, task.block_length, task.unique_answer) == (256, 32, False)
    if name != "text" and not task.runs_code:
        assert task.check(example, f"So the answer is {example.answer}.")
        assert not task.check(example, "So the answer is 7.")
        assert not task.check(example, "")


def test_a_row_without_an_answer_is_kept_and_cannot_be_judged():
    for name, row in (("gsm8k", {"question": "Why?"}), ("math500", {"problem": "Why?"}), ("aime25", {"problem": "Why?"}),
                      ("mmlu-pro", {"question": "Why?", "options": ["a"]}), ("mbpp", {"prompt": "Why?"})):  # fmt: skip
        assert not get(name).judges(get(name).row(row))
    for name in ("words", "arithmetic", "gsm8k-renumbered", "gsm8k-renumbered-heads"):
        assert not get(name).judges(Example("Why?", ""))
        assert get(name).judges(Example("Why?", "#### 1"))
    assert TASKS["multiplication"].judges(Example("2 * 3", ""))  # worked out


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("gsm8k", {"text": "x"}, "row must have question or problem or prompt or input, got text"),
        ("gsm8k", {"question": 3}, "question must be text, got 3"),
        ("gsm8k", {"question": " "}, "question must be text, got ' '"),
        ("gsm8k", {"question": "x", "answer": "none"}, "answer must end in a number, got 'none'"),
        ("gsm8k", {"question": "x", "answer": ["1"]}, "must be text or a number, got ['1']"),
        ("gsm8k", ["x"], "line must be a JSON object, got"),
        ("aime24", {"problem": "x", "answer": 1000}, "answer must be a whole number from 0 to 999, got '1000'"),
        ("humaneval", {"prompt": "def f():", "test": "x"}, "row must have entry_point, got prompt, test"),
        ("mbpp", {"text": "x", "test_list": "assert f()"}, "test_list must be a list of texts, got 'assert f()'"),
        ("mmlu-pro", {"question": "x", "options": ["a", "b"], "answer": "C"}, "answer must be one of the letters of the options"),
        ("mmlu-pro", {"question": "x", "options": ["a"] * 11}, "options must be at most 10, got 11"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_read_is_named_by_file_and_line(name, row, reason, tmp_path):
    file = written(tmp_path, "rows", ROWS[name], row)
    with pytest.raises(ValueError, match="line 2") as caught:
        list(get(name).read(file))
    assert str(caught.value).startswith(f"{file}, line 2: ")
    assert reason in str(caught.value)


def test_text_files_are_for_tasks_with_a_generator(tmp_path):
    with pytest.raises(ValueError, match=r"file name must end in .jsonl or .jsonl.gz, got 'a.txt'"):
        list(get("gsm8k").read(tmp_path / "a.txt"))


def test_there_is_no_generator():
    with pytest.raises(
        ValueError, match="task gsm8k must be given a file of prompts, for it has no generator, got none"
    ):
        next(get("gsm8k").generate("train", seed=0))


def test_the_hub_is_asked_for_the_reported_split():
    requests = []

    def loader(*where, **more):
        requests.append((*where, more))
        return [ROWS["gsm8k"]]

    for name in BENCHMARKS:
        if BENCHMARKS[name].hub is not None:
            BENCHMARKS[name].hub.rows(loader)
    assert requests == [
        ("openai/gsm8k", "main", {"split": "test"}),
        ("HuggingFaceH4/MATH-500", None, {"split": "test"}),
        ("Maxwell-Jia/AIME_2024", None, {"split": "train"}),
        ("math-ai/aime25", None, {"split": "test"}),
        ("openai/openai_humaneval", None, {"split": "test"}),
        ("google-research-datasets/mbpp", "full", {"split": "test"}),
        ("TIGER-Lab/MMLU-Pro", None, {"split": "test"}),
    ]


def test_rows_of_the_hub_are_read_like_those_of_a_file(monkeypatch):
    monkeypatch.setattr("train.tasks.hub._load_dataset", lambda *where, **more: [ROWS["gsm8k"], {"question": 1}])
    examples = get("gsm8k").read("hub")
    assert next(examples).answer == "16"
    with pytest.raises(ValueError, match=r"^openai/gsm8k, row 2: question must be text, got 1$"):
        next(examples)


def test_a_hub_that_does_not_answer_is_one_sentence():
    def loader(*where, **more):
        raise ConnectionError("no route\nto host")

    sentence = r"^dataset a/b must be on the hub or in its cache \(.*\), got ConnectionError: no route$"
    with pytest.raises(ValueError, match=sentence):
        Hub("a/b").rows(loader)
    with pytest.raises(ValueError, match="task text must be given a file of prompts, for it is not on the hub"):
        list(get("text").read("hub"))


def test_an_eighth_of_the_prompts_is_dev_and_an_eighth_test_whatever_the_white_space():
    task = get("gsm8k")
    found = Counter(task.split_of(f"question {number}") for number in range(4000))
    assert found["dev"] == pytest.approx(500, rel=0.15)
    assert found["test"] == pytest.approx(500, rel=0.15)
    assert task.split_of("question  7\n") == task.split_of("question 7")
    with pytest.raises(ValueError, match="prompt must hold text, got ' '"):
        task.split_of(" ")


def test_code_runs_only_with_permission():
    for name in ("humaneval", "mbpp"):
        with pytest.raises(
            ValueError, match="run_code must be true for a checker that runs the model's code here, got false"
        ):
            get(name).check(Example("", "", "{}"), "pass")
        with pytest.raises(ValueError, match=f"run_code must be true for task {name}, whose checker runs"):
            require_permission(get(name), False)
        require_permission(get(name), True)
    require_permission(get("gsm8k"), False)


def test_a_program_is_prompt_reply_and_tests():
    example = get("humaneval").row(ROWS["humaneval"])
    assert program_of(example, "    return 1\n").startswith("def one():\n    ...\n    return 1\n")
    assert program_of(example, "x").endswith("\n\ncheck(one)\n")


def test_minerva_frame_before_the_rest():
    text = "The answer is 3. Final Answer: The final answer is $\\frac{1}{2}$. I hope it is correct."
    assert final_answer(text) == "\\frac{1}{2}"


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize(
    ("name", "file", "count"),
    [("gsm8k", "gsm8k/test", 1319), ("math500", "math500/test", 500), ("mmlu-pro", "mmlu_pro/test", 12032)],
)
def test_official_solutions_are_right_and_others_wrong(name, file, count):
    task = get(name)
    examples = list(task.read(SHARED / f"{file}.jsonl.gz"))
    assert len(examples) == count
    some = examples[:: max(1, count // 400)]
    assert all(task.check(example, example.response) for example in some)
    other = [task.check(a, b.response) for a, b in pairwise(some) if a.answer != b.answer]
    assert sum(other) <= 2  # 90 and 90 degrees are the same


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize(
    ("name", "file"), [("humaneval", "humaneval/HumanEval"), ("mbpp", "mbpp/mbpp"), ("mbpp", "mbpp/mbpp_sanitized")]
)
def test_official_programs_pass_in_the_sandbox(name, file):
    task = get(name, run_code=True)
    examples = list(task.read(SHARED / f"{file}.jsonl.gz"))
    some = examples[3 :: len(examples) // 6]
    assert all(task.check(example, example.response) for example in some)
    assert not any(task.check(example, "    return None\n") for example in some[:2])
