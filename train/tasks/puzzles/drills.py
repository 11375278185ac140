"""Sums to practise on: lines of one kind of operation each, with the numbers and the spacing that occur in worked answers."""

import math
import random
import re
from fractions import Fraction

from models.complaints import shown
from train.tasks.puzzles.puzzle import puzzle
from train.tasks.task import Example

OPERAND = r"\d*\.?\d+"
SUM = rf"{OPERAND}(?: ?[-+*/x] ?{OPERAND})+"
PROMPT = re.compile(rf"{SUM}(?:\n{SUM})*")
PROMPT_LENGTH, GEN_LENGTH = 64, 96


def make(rng: random.Random) -> Example:
    """Draw one to four sums; the answer repeats each with its result and ends in `####` and the last result."""
    while True:
        example = _draw(rng)
        if (
            len(example.prompt) <= PROMPT_LENGTH and len(example.response) < GEN_LENGTH
        ):  # no token is shorter than a sign
            return example


def _draw(rng: random.Random) -> Example:
    spaced, times = rng.random() < 0.5, rng.choice("*x")
    lines, result = [], Fraction(0)
    for _ in range(rng.randint(1, 4)):
        numbers, sign, result = _sum(rng)
        bare = rng.random() < 0.3  # .2 for 0.2, as worked answers have it
        operands = [_spell(number, bare=bare) for number in numbers]
        sign = times if sign == "*" else sign
        text = (f" {sign} " if spaced else sign).join(operands)
        lines.append((text, f"{text} = {_spell(result)}" if spaced else f"{text}={_spell(result)}"))
    return Example("\n".join(one for one, _ in lines), "\n".join(two for _, two in lines) + f"\n#### {_spell(result)}")


def _sum(rng: random.Random) -> tuple[list[Fraction], str, Fraction]:
    """Operands, the operation between them and its result: positive, in hundredths at the finest."""
    sign = rng.choice("+-**//")
    if sign in "+-":
        unit = 100 if rng.random() < 0.15 else 1
        numbers = [Fraction(_number(rng, 4), unit) for _ in range(rng.choice((2, 2, 2, 3, 4, 5)) if sign == "+" else 2)]
        return (numbers, "+", sum(numbers, Fraction(0))) if sign == "+" else _apart(sorted(numbers, reverse=True))
    first, second = Fraction(_number(rng, 3)), _factor(rng)
    if sign == "/":
        return [first * second, second], "/", first
    return ([first, second] if rng.random() < 0.5 else [second, first]), "*", first * second


def _apart(numbers: list[Fraction]) -> tuple[list[Fraction], str, Fraction]:
    """The greater minus the smaller; twice the number minus itself where they are equal."""
    greater, smaller = numbers
    greater = 2 * greater if greater == smaller else greater
    return [greater, smaller], "-", greater - smaller


def _factor(rng: random.Random) -> Fraction:
    """A small whole number, or tenths or a share such as .25."""
    kind = rng.random()
    if kind < 0.7:
        return Fraction(_number(rng, 2))
    return Fraction(rng.randint(1, 99), 10) if kind < 0.9 else Fraction(5 * rng.randint(1, 30), 100)


def _number(rng: random.Random, digits: int) -> int:
    size = 10 ** rng.choice([1, 1, 2, 2, 2, 3, 3, 4][: 2 * digits])
    number = rng.randint(max(1, size // 10), size - 1)
    return number * rng.choice((10, 100)) if rng.random() < 0.15 else number


def _spell(number: Fraction, *, bare: bool = False) -> str:
    """Whole numbers plain, others with as many decimals as they need."""
    decimals = next(places for places in range(3) if (number * 10**places).denominator == 1)
    whole, rest = divmod(math.floor(number * 10**decimals), 10**decimals)
    return f"{'' if bare and decimals and not whole else whole}{f'.{rest:0{decimals}d}' if decimals else ''}"


def canonical(prompt: str) -> str:
    """Name the instance by its sums without spaces, with 0.2 for .2.

    Raises:
        ValueError: if the prompt is not lines of sums.
    """
    if not PROMPT.fullmatch(prompt):
        raise ValueError(f"arithmetic prompt must be lines such as '23 + 48', got {shown(prompt)}")
    return re.sub(r"(?<!\d)\.", "0.", prompt.replace(" ", "").replace("x", "*"))


def check(example: Example, text: str) -> bool:
    """Accept the one right text."""
    return text == example.response


ARITHMETIC = puzzle(
    "arithmetic",
    PROMPT_LENGTH,
    GEN_LENGTH,
    unique_answer=True,
    make=make,
    canonical=canonical,
    check=check,
    block_length=32,
    needs_response=True,
)
