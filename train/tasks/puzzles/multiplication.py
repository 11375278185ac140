"""4x4-digit multiplication with its chain of thought, digits written from the least significant one."""

import random
import re

from models.complaints import shown
from train.tasks.puzzles.puzzle import puzzle
from train.tasks.task import Example

DIGITS = 4
_PROMPT = re.compile(r"([0-9](?: [0-9])*) \* ([0-9](?: [0-9])*)")


def parse(prompt: str) -> tuple[str, str]:
    """Split `5 6 3 2 * 7 4 3 4` into its factors' digit strings, least significant digit first.

    Raises:
        ValueError: if the prompt is not two space-separated digit rows around ` * `.
    """
    match = _PROMPT.fullmatch(prompt)
    if match is None:
        raise ValueError(f"multiplication prompt must look like '5 6 3 2 * 7 4 3 4', got {shown(prompt)}")
    return match[1].replace(" ", ""), match[2].replace(" ", "")


def work_out(prompt: str) -> str:
    """Write the chain of thought for a prompt.

    With factors a and b = sum_i b_i 10^i of m and n digits: the terms p_i = a b_i 10^i in m+1+i digits joined by `+`,
    after each inner term the running sum s_i = p_0 + ... + p_i in brackets, and after `####` the product in m+n digits.
    """
    first, second = parse(prompt)
    factor, width = int(first[::-1]), len(first) + 1
    total, parts = 0, []
    for power, digit in enumerate(second):
        term = factor * int(digit) * 10**power
        total += term
        inner = 0 < power < len(second) - 1
        parts.append(_spell(term, width + power) + (f" ( {_spell(total, width + power)} )" if inner else ""))
    return " + ".join(parts) + " #### " + _spell(total, len(first) + len(second))


def _spell(value: int, width: int) -> str:
    return " ".join(str(value).zfill(width)[::-1])


def make(rng: random.Random) -> Example:
    """Draw two factors uniformly from 1000..9999."""
    low, high = 10 ** (DIGITS - 1), 10**DIGITS - 1
    prompt = " * ".join(_spell(rng.randint(low, high), DIGITS) for _ in range(2))
    return Example(prompt, work_out(prompt))


def canonical(prompt: str) -> str:
    """Name the instance by its ordered factors."""
    return "*".join(parse(prompt))


def check(example: Example, text: str) -> bool:
    """Accept the reference chain of thought alone, worked out here where the file gave none."""
    return text == (example.response or work_out(example.prompt))


MULTIPLICATION = puzzle("multiplication", 9, 64, unique_answer=True, make=make, canonical=canonical, check=check)
