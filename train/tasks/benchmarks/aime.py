"""AIME 2024 and 2025: competition problems whose answer is a whole number from 0 to 999 (lm-eval `aime24`, `aime25`)."""

import re
from decimal import Decimal

from models.complaints import shown
from train.tasks.benchmarks.arithmetic import value
from train.tasks.benchmarks.benchmark import benchmark, optional, until
from train.tasks.benchmarks.gsm8k import final_number
from train.tasks.benchmarks.latex import last_boxed, spell
from train.tasks.benchmarks.math500 import ASK_FOR_BOX
from train.tasks.hub import Hub
from train.tasks.question import question
from train.tasks.task import Example, Row

LARGEST = 999
NEXT_QUESTION = ("\nQuestion:", "\nProblem:")


def ask(problem: str) -> str:
    """The user message for a problem."""
    return f"Question: {problem}\n{ASK_FOR_BOX}\nAnswer:"


def read(row: Row) -> Example:
    """Read a record with `problem` and `answer`, in capitals or not; the answer as a number or as text."""
    problem = question(row, "problem", "Problem", "question", "prompt", "input")
    answer, solution = optional(row, "answer", "Answer", "output", "response"), optional(row, "solution", "Solution")
    number = whole(answer)
    if answer and number is None:
        raise ValueError(f"answer must be a whole number from 0 to {LARGEST}, got {shown(answer)}")
    return Example(ask(problem), solution or answer, "" if number is None else str(number))


def check(example: Example, text: str) -> bool:
    """Compare the final whole number with the reference."""
    number = final_answer(text)
    return number is not None and number == int(example.answer)


def final_answer(text: str) -> int | None:
    """The whole number in the last box, else the final number as in GSM8K; None if that is no whole number from 0 to 999."""
    text = until(text, *NEXT_QUESTION)
    box = last_boxed(text)
    if box is not None:
        return whole(box.rpartition("=")[2])
    number = final_number(text)
    return None if number is None else whole(str(number))


def whole(text: str) -> int | None:
    """Read a whole number from 0 to 999, also where it is written as a sum or with leading zeros."""
    text = spell(text)
    parsed = Decimal(text) if re.fullmatch(r"-?\d+(\.\d+)?", text) else value(text)
    if parsed is None or (isinstance(parsed, complex) and abs(parsed.imag) > 0):
        return None
    number = parsed.real if isinstance(parsed, complex) else parsed
    return int(number) if number == int(number) and 0 <= number <= LARGEST else None


AIME24 = benchmark("aime24", read, check, ask=ask, hub=Hub("Maxwell-Jia/AIME_2024", split="train"))
AIME25 = benchmark("aime25", read, check, ask=ask, hub=Hub("math-ai/aime25"))
