"""Ten-digit addition: easy sums, carry chains of every length, and edge cases, in the shares of arXiv 2602.00286 (appendix D).

The paper names its classes easy, medium, hard, extreme, edge and mixed, and their shares; what is in them beyond the edge
cases is ours: no carry at all, chains of 1 to 3, 4 to 6 and 7 to 10 digits, and numbers of different lengths.
"""

import random
import re
from collections.abc import Callable, Mapping
from functools import partial

from models.complaints import shown
from train.tasks.puzzles.puzzle import puzzle
from train.tasks.task import Example, Task

DIGITS = 10
SHARES: Mapping[str, int] = {"easy": 10, "medium": 20, "hard": 30, "extreme": 20, "edge": 10, "mixed": 10}
CHAINS = {"medium": (1, 3), "hard": (4, 6), "extreme": (7, 10)}
_PROMPT = re.compile(rf"([0-9]{{{DIGITS}}})\+([0-9]{{{DIGITS}}})")


def parse(prompt: str) -> tuple[int, int]:
    """Split `0000000012+0000000030` into its summands.

    Raises:
        ValueError: if the prompt is not two ten-digit numbers joined by `+`.
    """
    match = _PROMPT.fullmatch(prompt)
    if match is None:
        raise ValueError(f"addition prompt must be two numbers of {DIGITS} digits joined by +, got {shown(prompt)}")
    return int(match[1]), int(match[2])


def spell(first: int, second: int) -> Example:
    """The prompt and its sum, 11 digits, the most significant one first."""
    return Example(f"{first:0{DIGITS}d}+{second:0{DIGITS}d}", f"{first + second:0{DIGITS + 1}d}")


def carry_chain(first: int, second: int) -> int:
    """Length of the longest carry chain: a pair of digits that carries and the pairs of sum 9 right above it."""
    longest = run = 0
    for power in range(DIGITS):
        pair = first // 10**power % 10 + second // 10**power % 10
        run = 1 if pair >= 10 else run + 1 if pair == 9 and run else 0
        longest = max(longest, run)
    return longest


def no_carry(rng: random.Random) -> tuple[int, int]:
    """Two numbers whose digits add up to at most 9 everywhere."""
    totals = [rng.randint(0, 9) for _ in range(DIGITS)]
    parts = [rng.randint(0, total) for total in totals]
    return number(parts), number([total - part for total, part in zip(totals, parts, strict=True)])


def carrying(rng: random.Random, kind: str) -> tuple[int, int]:
    """Two random numbers with a carry chain whose length belongs to the class."""
    low, high = CHAINS[kind]
    length = rng.randint(low, high)
    start = rng.randint(0, DIGITS - length)
    while True:
        pairs = [(rng.randint(0, 9), rng.randint(0, 9)) for _ in range(DIGITS)]
        one = rng.randint(1, 9)
        pairs[start] = one, rng.randint(10 - one, 9)
        for power in range(start + 1, start + length):
            one = rng.randint(0, 9)
            pairs[power] = one, 9 - one
        first, second = (number([pair[side] for pair in pairs]) for side in (0, 1))
        if low <= carry_chain(first, second) <= high:
            return first, second


def edge(rng: random.Random) -> tuple[int, int]:
    """A carry through all digits as in 9999999999 + 1, a sum with 0, or two numbers near the largest one."""
    top = 10**DIGITS - 1
    kind = rng.randrange(3)
    if kind == 0:
        pair = (top, rng.randint(1, 10 ** rng.randint(1, DIGITS) - 1))
    elif kind == 1:
        pair = (rng.randint(0, top), 0)
    else:
        pair = (top - rng.randint(0, 9999), top - rng.randint(0, 9999))
    return pair if rng.random() < 0.5 else (pair[1], pair[0])


def mixed(rng: random.Random) -> tuple[int, int]:
    """Two numbers of 1 to 10 digits each."""
    first, second = (rng.randrange(10 ** rng.randint(1, DIGITS)) for _ in range(2))
    return first, second


def number(digits: list[int]) -> int:
    """The number with these digits, the least significant one first."""
    return sum(digit * 10**power for power, digit in enumerate(digits))


KINDS: Mapping[str, Callable[[random.Random], tuple[int, int]]] = {
    "easy": no_carry,
    **{kind: partial(carrying, kind=kind) for kind in CHAINS},
    "edge": edge,
    "mixed": mixed,
}


def make(rng: random.Random, *, kinds: tuple[str, ...]) -> Example:
    """Draw a class by its share, then a sum of it."""
    (kind,) = rng.choices(kinds, [SHARES[name] for name in kinds])
    return spell(*KINDS[kind](rng))


def canonical(prompt: str) -> str:
    """Name the instance by its summands in order."""
    parse(prompt)
    return prompt


def check(example: Example, text: str) -> bool:
    """Accept the sum alone, all 11 digits."""
    return text == spell(*parse(example.prompt)).response


def _task(name: str, *kinds: str) -> Task:
    draw = partial(make, kinds=kinds)
    return puzzle(name, 2 * DIGITS + 1, DIGITS + 2, unique_answer=True, make=draw, canonical=canonical, check=check)


ADDITION = _task("addition", *SHARES)
ADDITION_EASY = _task("addition-easy", "easy")
ADDITION_CARRY = _task("addition-carry", *CHAINS)
ADDITION_EDGE = _task("addition-edge", "edge")
