"""HumanEval: complete a Python function; the official tests are run on it (lm-eval `humaneval_instruct`, nothing prefilled)."""

import json
import re

from train.tasks.benchmarks.benchmark import benchmark, field, optional
from train.tasks.benchmarks.code_text import find_code, program
from train.tasks.benchmarks.sandbox import run_program
from train.tasks.hub import Hub
from train.tasks.task import Example, Row

HEAD = re.compile(r"^def (\w+)", re.MULTILINE)


def ask(prompt: str) -> str:
    """The user message for the head of a function with its docstring."""
    return f"Write a solution to the following problem and make sure that it passes the tests:\n```python\n{prompt.rstrip()}\n```\n"


def read(row: Row) -> Example:
    """Read a record with `prompt`, `entry_point` and `test`."""
    prompt, tests = field(row, "prompt"), optional(row, "test")
    known = {"prompt": prompt, "entry_point": field(row, "entry_point"), "test": tests} if tests else None
    return Example(ask(prompt), optional(row, "canonical_solution"), json.dumps(known) if known else "")


def check(example: Example, text: str) -> bool:
    """Run the official tests on the function."""
    return run_program(program_of(example, text))


def program_of(example: Example, text: str) -> str:
    """The program that is run: prompt, what the model made of it, tests."""
    known = json.loads(example.answer)
    name = known["entry_point"]
    code = find_code(text, (name,))
    prompt = known["prompt"] if known["prompt"].endswith("\n") else known["prompt"] + "\n"
    start = f"{prompt}    pass\n\n\n" if code.whole else prompt  # helpers and imports of the prompt stay
    return program(f"{start}{code.text}", "", known["test"], "", f"check({name})\n")


HUMANEVAL = benchmark("humaneval", read, check, ask=ask, hub=Hub("openai/openai_humaneval"), runs_code=True)
