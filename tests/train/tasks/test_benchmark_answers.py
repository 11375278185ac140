"""Tables of what models write, judged as a person would: the answer found, its form and its value."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from train.tasks import get
from train.tasks.benchmarks.code_text import find_code, program
from train.tasks.benchmarks.mmlu_pro import final_letter
from train.tasks.task import Example

TABLES = Path(__file__).parent / "tables"
TESTS = {
    "humaneval": {
        "prompt": "from typing import List, Optional\n\n\ndef largest(numbers: List[int]) -> Optional[int]:\n"
        '    """Largest number of a list, None for an empty one.\n    >>> largest([1, 5, 3])\n    5\n    """\n',
        "entry_point": "largest",
        "test": "def check(candidate):\n    assert candidate([1, 5, 3]) == 5\n    assert candidate([-2, -7]) == -2\n"
        "    assert candidate([]) is None\n",
    },
    "mbpp": {
        "text": "Write a function to count the vowels of a text.",
        "test_list": [
            "assert count_vowels('Queue') == 4",
            "assert count_vowels('') == 0",
            "assert count_vowels('rhythm') == 0",
        ],
    },
}
MMLU = {
    "question": "What is 6 * 7?",
    "options": ["40", "41.5", "42", "43", "44", "45", "46", "47", "48", "N"],
    "answer": "",
}


def table(name: str) -> list[object]:
    lines = (TABLES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) >= 40
    return [pytest.param(json.loads(line), id=f"{name}-{number}") for number, line in enumerate(lines, 1)]


def exec_here(program: str) -> bool:
    """In place of the sandbox: the table holds no program that would hurt."""
    module = sys.modules["program"] = ModuleType("program")
    try:
        exec(compile(program, "program", "exec"), module.__dict__)
    except (Exception, SystemExit):  # noqa: BLE001 - whatever the program raises
        return False
    finally:
        del sys.modules["program"]
    return True


@pytest.mark.parametrize("row", table("gsm8k"))
def test_gsm8k(row) -> None:
    assert get("gsm8k").check(Example("", "", row["answer"]), row["output"]) is row["right"]


@pytest.mark.parametrize("row", table("math500"))
def test_math500(row) -> None:
    assert get("math500").check(Example("", "", row["answer"]), row["output"]) is row["right"]


@pytest.mark.parametrize("row", table("aime"))
def test_aime(row) -> None:
    assert get("aime24").check(Example("", "", row["answer"]), row["output"]) is row["right"]
    assert get("aime25").check(Example("", "", row["answer"]), row["output"]) is row["right"]


@pytest.mark.parametrize("row", table("mmlu_pro"))
def test_mmlu_pro(row) -> None:
    task = get("mmlu-pro")
    example = task.row({**MMLU, "answer": row["answer"]})
    assert task.check(example, row["output"]) is row["right"]


@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_code(name, monkeypatch) -> None:
    monkeypatch.setattr(f"train.tasks.benchmarks.{name}.run_program", exec_here)
    task = get(name, run_code=True)
    example = task.row(TESTS[name])
    rows = [parameter.values[0] for parameter in table(name)]
    wrong = [number for number, row in enumerate(rows, 1) if task.check(example, row["output"]) is not row["right"]]
    assert wrong == [], [rows[number - 1]["output"] for number in wrong]


def test_code_from_the_future_stands_at_the_top_once():
    future = "from __future__ import annotations\n"
    assert program("import os\n", f"{future}x: Y = 1\n", f"{future}y = 2\n").split() == (
        f"{future} import os x: Y = 1 y = 2".split()
    )


def test_a_text_of_signs_names_no_option_of_signs() -> None:
    assert final_letter("...", [("A", "<"), ("B", "1")]) is None


@pytest.mark.parametrize(
    "piece", ["    ", "\n    ", "```\n", " [1", "1/", "\\boxed{", "final answer is ", "*\n", " (1 a", "answer is "]
)
@pytest.mark.parametrize("task", ["gsm8k", "math500", "mmlu-pro"])
def test_an_answer_that_repeats_itself_is_judged_at_once(task, piece):
    began = time.perf_counter()
    assert not get(task).check(Example("", "", "7" if task == "gsm8k" else "C"), piece * 5000)
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("piece", ["```\n", "```python\n", "    ```\n", "~~~ ", "a = b.c\n", "x.y", "    \n"])
def test_code_that_repeats_itself_is_found_at_once(piece):
    began = time.perf_counter()
    find_code(piece * 5000, ("largest",))
    assert time.perf_counter() - began < 5
