"""MBPP: write a Python function from one sentence and three tests, which are run on it (lm-eval `mbpp_instruct`, zero-shot)."""

import json
import re

from train.tasks.benchmarks.benchmark import benchmark, optional, texts
from train.tasks.benchmarks.code_text import find_code, program
from train.tasks.benchmarks.sandbox import run_program
from train.tasks.hub import Hub
from train.tasks.question import question
from train.tasks.task import Example, Row

SHOWN = 3
CALL = re.compile(r"([A-Za-z_]\w*)\s*\(")


def ask(text: str, tests: tuple[str, ...] = ()) -> str:
    """The user message for a task and the tests it shows."""
    shown = "".join(f"\n{test}" for test in tests)
    return f"You are an expert Python programmer, and here is your task:\n{text}" + (
        f"\nYour code should pass these tests:{shown}\n" if tests else "\n"
    )


def read(row: Row) -> Example:
    """Read a record with `text` (full) or `prompt` (sanitized), `test_list`, and `test_setup_code` or `test_imports`."""
    tests = texts(row, "test_list")
    setup = optional(row, "test_setup_code").replace("\r\n", "\n")
    known = json.dumps({"imports": texts(row, "test_imports"), "setup": setup, "tests": tests}) if tests else ""
    return Example(ask(question(row, "text", "prompt"), tuple(tests[:SHOWN])), optional(row, "code"), known)


def check(example: Example, text: str) -> bool:
    """Run the tests on the function."""
    return run_program(program_of(example, text))


def program_of(example: Example, text: str) -> str:
    """The program that is run: imports, what the model wrote, the set-up (which may use its classes), tests."""
    known = json.loads(example.answer)
    names = tuple(dict.fromkeys(name for test in known["tests"] for name in CALL.findall(test)))
    return program(*known["imports"], find_code(text, names).text, known["setup"], *known["tests"], "")


MBPP = benchmark("mbpp", read, check, ask=ask, hub=Hub("google-research-datasets/mbpp", config="full"), runs_code=True)
