"""Countdown: reach the target with every number used exactly once, one equation a step."""

import random
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import accumulate

from models.complaints import shown
from train.tasks.puzzles.puzzle import puzzle
from train.tasks.task import Example, Task

NUMBERS = (1, 99)
TARGETS = (10, 100)
# Targets of the published test files, never drawn, so that those files stay a test of unseen targets.
HELD_OUT = {3: (22, 24, 25, 30, 32, 50, 65, 67, 96), 4: (14, 39, 41, 57, 62, 81, 87, 89, 96)}
# How often a step tries + - * /: gives the shares that a uniform choice among all solutions of a random solvable
# instance has (+ - * / 30, 54, 7 and 9 percent of the steps for three numbers; 25, 47, 11 and 16 for four).
OPERATOR_WEIGHTS = {3: (0.172, 0.178, 0.317, 0.333), 4: (0.133, 0.141, 0.336, 0.390)}
# Times or over 1 and plus or minus 0 have twins elsewhere in the calculation, so such a solution is one of several.
KEEP_NEUTRAL = 0.25
_STEP = re.compile(r"([0-9]+)([-+*/])([0-9]+)=([0-9]+)")
_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b if b and a % b == 0 else -1,
}


def parse(prompt: str, *, count: int) -> tuple[list[int], int]:
    """Split a prompt into its numbers and, last, the target.

    Raises:
        ValueError: if it is not `count` + 1 comma-separated whole numbers without leading zeros.
    """
    words = prompt.split(",")
    if len(words) != count + 1 or not all(re.fullmatch(r"0|[1-9][0-9]*", word) for word in words):
        raise ValueError(
            f"countdown{count} prompt must be {count + 1} whole numbers joined by commas, got {shown(prompt)}"
        )
    *numbers, target = map(int, words)
    return numbers, target


def make(rng: random.Random, *, count: int) -> Example:
    """Draw numbers and a random calculation until its result is a target of the task."""
    plus, minus, times, _ = accumulate(OPERATOR_WEIGHTS[count])
    while True:
        numbers = [NUMBERS[0] + int(rng.random() * NUMBERS[1]) for _ in range(count)]
        steps = _calculate(rng.random, list(numbers), plus, minus, times)
        if not steps:
            continue
        target = steps[-1][3]
        if TARGETS[0] <= target <= TARGETS[1] and target not in HELD_OUT[count]:
            return Example(",".join(map(str, [*numbers, target])), ",".join(f"{a}{o}{b}={c}" for a, o, b, c in steps))


def _calculate(
    draw: Callable[[], float], pool: list[int], plus: float, minus: float, times: float
) -> list[tuple[int, str, int, int]]:
    """Combine random pairs by random operators; empty if a step is not exact or, mostly, if it is neutral."""
    steps: list[tuple[int, str, int, int]] = []
    for size in range(len(pool), 1, -1):
        a, b = pool.pop(int(draw() * size)), pool.pop(int(draw() * (size - 1)))
        u = draw()
        if u < plus:
            sign, result, neutral = "+", a + b, not (a and b)
        elif u < minus:
            a, b = max(a, b), min(a, b)
            sign, result, neutral = "-", a - b, not b
        elif u < times:
            sign, result, neutral = "*", a * b, a < 2 or b < 2
        else:
            a, b = max(a, b), min(a, b)
            if b == 0 or a % b:
                return []
            sign, result, neutral = "/", a // b, b == 1
        if neutral and draw() > KEEP_NEUTRAL:
            return []
        steps.append((a, sign, b, result))
        pool.append(result)
    return steps


def canonical(prompt: str, *, count: int) -> str:
    """Name the instance by its sorted numbers and its target."""
    numbers, target = parse(prompt, count=count)
    return ",".join(map(str, [*sorted(numbers), target]))


def check(example: Example, text: str, *, count: int) -> bool:
    """Evaluate the equations: each number and each intermediate result used exactly once, every step exact and
    non-negative, the last result the target."""
    numbers, target = parse(example.prompt, count=count)
    pool = Counter(numbers)
    for step in text.split(","):
        match = _STEP.fullmatch(step)
        if match is None or any(word != str(int(word)) for word in match.group(1, 3, 4)):
            return False
        a, b, result = (int(word) for word in match.group(1, 3, 4))
        pool.subtract((a, b))
        if min(pool[a], pool[b]) < 0 or result < 0 or _OPERATIONS[match[2]](a, b) != result:
            return False
        pool[result] += 1
    return +pool == Counter([target])


def _countdown(count: int, *, prompt_length: int, gen_length: int) -> Task:
    return puzzle(
        f"countdown{count}",
        prompt_length,
        gen_length,
        unique_answer=False,
        make=partial(make, count=count),
        canonical=partial(canonical, count=count),
        check=partial(check, count=count),
    )


COUNTDOWN3 = _countdown(3, prompt_length=12, gen_length=24)
COUNTDOWN4 = _countdown(4, prompt_length=15, gen_length=40)
