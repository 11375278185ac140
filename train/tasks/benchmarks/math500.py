"""MATH-500: competition mathematics, judged by the boxed answer (lm-eval `minerva_math`, with a sentence that asks for the box)."""

import re

from train.tasks.benchmarks.benchmark import benchmark, optional, squeezed, until
from train.tasks.benchmarks.latex import last_boxed, same
from train.tasks.hub import Hub
from train.tasks.question import question
from train.tasks.task import Example, Row

FINAL = re.compile(r"final answer is:?\s*(.{1,1000}?)\.?\s*I hope it is correct", re.IGNORECASE | re.DOTALL)
ANSWER = re.compile(
    r"\banswer\b(?:\s+(?:to|for|of)\b[^.\n:=]{0,80}?)?[*_\s]*(?:is(?!\s+not)|=|:)[*_:\s]*(?=(\S[^\n]*))",
    re.IGNORECASE,
)
MATHS = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<!\\)\$(.+?)(?<!\\)\$", re.DOTALL)
STATED = re.compile(r"(?:\bis|\bare|\bequals|=|:)\s*(?P<rest>[^=:]+)$")
NEXT_PROBLEM = ("\nProblem:", "\nQuestion:", "\n\nQ:")
ASK_FOR_BOX = "Please reason step by step, and put your final answer within \\boxed{}."


def ask(problem: str) -> str:
    """The user message for a problem."""
    return f"Problem:\n{problem}\n{ASK_FOR_BOX}\n\nSolution:"


def read(row: Row) -> Example:
    """Read a record with `problem` and `answer`, or `solution` with a box."""
    problem, solution = (
        question(row, "problem", "question", "prompt", "input"),
        optional(row, "solution", "output", "response"),
    )
    answer = optional(row, "answer") or last_boxed(solution) or ""
    return Example(ask(problem), solution or answer, answer)


def check(example: Example, text: str) -> bool:
    """Compare the final answer with the reference, in form and in value."""
    answer = final_answer(text)
    return answer is not None and same(answer, example.answer)


def final_answer(text: str) -> str | None:
    """The answer that a text gives, None if it gives none.

    In this order: the last box; minerva's "the final answer is ... I hope it is correct"; what follows the last "answer is"; the
    last formula, or what follows the last "is" or "=", of the last line.
    """
    text = squeezed(until(text, *NEXT_PROBLEM))
    box = last_boxed(text)
    if box is not None:
        return box
    final = FINAL.findall(text)
    if final:
        return _formula(final[-1])
    stated = [*ANSWER.finditer(text)]
    if stated:
        return _formula(stated[-1][1])
    lines = text.strip().splitlines()
    if not lines:
        return None
    formulas = ["".join(groups) for groups in MATHS.findall(lines[-1] if MATHS.search(lines[-1]) else text.strip())]
    if formulas and (MATHS.search(lines[-1]) or text.rstrip(" .").endswith(("$", "\\]"))):
        return _right_side(formulas[-1])
    tail = STATED.search(re.split(r"(?<=[.!?])\s", lines[-1].strip())[-1])
    return _right_side(tail["rest"]) if tail else re.sub(r"</?\w+>", "", lines[-1]).strip(" *")


def _formula(clause: str) -> str:
    """The first formula of a clause that holds one, else its first sentence."""
    formulas = ["".join(groups) for groups in MATHS.findall(clause)]
    if formulas:
        whole = re.sub(r"\s*(?:,|and|or)\s*$", "", clause[: clause.rfind("$") + 1]) if len(formulas) > 1 else ""
        several = bool(re.fullmatch(r"(?:\$[^$]+\$(?:\s*,?\s*(?:and|or)?\s*)?)+", whole))
        return ",".join(formulas) if several else _right_side(formulas[0])
    sentence = re.split(r"\.(?=\s|$)|\*\*", clause)[0]
    return _right_side(sentence.strip(" *"))


def _right_side(formula: str) -> str:
    """What a chain of equations comes to; an equation between two terms stays whole."""
    return formula.rpartition("=")[2].strip() if formula.count("=") > 1 else formula.strip()


MATH500 = benchmark("math500", read, check, ask=ask, hub=Hub("HuggingFaceH4/MATH-500"))
