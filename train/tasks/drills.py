"""Sums to practise on: lines of one operation each, with the numbers and the spacing that occur in worked answers."""

import random
import re

from train.tasks.task import Example, Task

STYLES = ("{}{}{}", "{} {} {}")
PROMPT = re.compile(r"[\d.]+ ?[-+*/x] ?[\d.]+(?:\n[\d.]+ ?[-+*/x] ?[\d.]+)*")


def make(rng: random.Random) -> Example:
    """Draw one to four sums; the answer repeats each with its result and ends in `####` and the last result."""
    lines, result = [], ""
    style, times = rng.choice(STYLES), rng.choice("*x")
    for _ in range(rng.randint(1, 4)):
        first, sign, second, result = _sum(rng)
        text = style.format(first, times if sign == "*" else sign, second)
        lines.append((text, f"{text} = {result}" if " " in style else f"{text}={result}"))
    return Example("\n".join(one for one, _ in lines), "\n".join(two for _, two in lines) + f"\n#### {result}")


def _sum(rng: random.Random) -> tuple[str, str, str, str]:
    """One operation whose result is positive and whole, now and then in cents."""
    sign = rng.choice("+-*/")
    cents = rng.random() < 0.1
    if sign in "+-":
        first, second = sorted((_number(rng, 4), _number(rng, 4)))
        total = first + second
        a, b, c = (first, second, total) if sign == "+" else (total, first, second)
        if rng.random() < 0.5 and sign == "+":
            a, b = b, a
        return _signed(a, sign, b, c, cents)
    a, b = _number(rng, 3), _number(rng, 2)
    if rng.random() < 0.5:
        a, b = b, a
    return _signed(a, "*", b, a * b, False) if sign == "*" else _signed(a * b, "/", b, a, False)


def _number(rng: random.Random, digits: int) -> int:
    size = 10 ** rng.choice([1, 1, 2, 2, 2, 3, 3, 4][: 2 * digits])
    number = rng.randint(max(1, size // 10), size - 1)
    return number * rng.choice((10, 100)) if rng.random() < 0.15 else number


def _signed(a: int, sign: str, b: int, c: int, cents: bool) -> tuple[str, str, str, str]:
    first, second, third = (f"{n / 100:.2f}" if cents else str(n) for n in (a, b, c))
    return first, sign, second, third


def canonical(prompt: str) -> str:
    """Name the instance by its sums without spaces.

    Raises:
        ValueError: if the prompt is not lines of one operation each.
    """
    if not PROMPT.fullmatch(prompt):
        raise ValueError(f"arithmetic prompt must be lines such as '23 + 48', got {prompt!r}")
    return prompt.replace(" ", "").replace("x", "*")


def check(example: Example, text: str) -> bool:
    """Accept the one right text."""
    return text == example.response


ARITHMETIC = Task(
    name="arithmetic",
    prompt_length=64,
    gen_length=96,
    block_length=32,
    unique_answer=True,
    make=make,
    canonical=canonical,
    check=check,
    needs_response=True,
)
