"""The value of a formula in LaTeX at chosen values of its letters: enough to tell equal answers without computer algebra."""

from __future__ import annotations

import cmath
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from models.complaints import shown

TOKEN = re.compile(r"\d+(?:\.\d+)?|\.\d+|\\[a-zA-Z]+|\S")
FUNCTIONS: dict[str, Callable[[complex], complex]] = {
    "sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan, "cot": lambda x: 1 / cmath.tan(x), "sec": lambda x: 1 / cmath.cos(x),
    "csc": lambda x: 1 / cmath.sin(x), "ln": cmath.log, "log": cmath.log10, "exp": cmath.exp,
    "arcsin": cmath.asin, "arccos": cmath.acos, "arctan": cmath.atan,
}  # fmt: skip
CONSTANTS: dict[str, complex] = {"\\pi": complex(math.pi), "i": 1j, "e": complex(math.e)}
POINTS = (0, 1, 2)
TOLERANCE = 1e-12
MAX_POWER = 400.0
LARGEST_FACTORIAL = 150


def agree(first: str, second: str) -> bool:
    """Say whether two formulas, or the two sides of two equations, have the same value wherever they were tried."""
    if first.count("=") != second.count("=") or first.count("=") > 1:
        return False
    for point in POINTS:
        left, right = (_value_or_gap(text, point) for text in (first, second))
        if left is None or right is None:
            return False
        if not _close(left, right) and not ("=" in first and _close(left, -right)):
            return False
    return True


def value(text: str, point: int = 0) -> complex | None:
    r"""The value of a formula with each letter at a value of its own; None if it cannot be read.

    Args:
        text: numbers, letters, + - * / ^ and brackets, \frac, \sqrt, \pi, \cdot, \times and the usual functions.
        point: which values the letters take.
    """
    try:
        reader = _Reader(TOKEN.findall(text), point)
        total = reader.sum()
    except (ValueError, ZeroDivisionError, OverflowError, RecursionError):
        return None
    return total if reader.done and cmath.isfinite(total) else None


def _value_or_gap(text: str, point: int) -> complex | None:
    """Left side minus right side of an equation."""
    sides = [value(side, point) for side in text.split("=")]
    if None in sides:
        return None
    first, *second = (side for side in sides if side is not None)
    return first - sum(second)


def _close(first: complex, second: complex) -> bool:
    return abs(first - second) <= TOLERANCE * max(1.0, abs(first), abs(second))


def _whole(number: complex) -> int:
    if number.imag or number.real % 1 or not 0 <= number.real <= LARGEST_FACTORIAL:
        raise ValueError(f"number must be whole, from 0 to {LARGEST_FACTORIAL}, got {number}")
    return int(number.real)


@dataclass
class _Reader:
    """Recursive descent over tokens; ValueError where the formula breaks off or holds something unknown."""

    tokens: list[str]
    point: int
    place: int = field(default=0)

    @property
    def done(self) -> bool:
        return self.place == len(self.tokens)

    @property
    def next(self) -> str:
        return "" if self.done else self.tokens[self.place]

    def take(self, *wanted: str) -> str:
        token = self.next
        if not token or (wanted and token not in wanted):
            raise ValueError(f"formula must go on with {' or '.join(wanted) or 'a term'}, got {shown(token)}")
        self.place += 1
        return token

    def sum(self) -> complex:
        total = self.product()
        while self.next in ("+", "-"):
            sign = 1 if self.take() == "+" else -1
            total += sign * self.product()
        return total

    def product(self) -> complex:
        if self.next in ("+", "-"):
            return self.product() if self.take() == "+" else -self.product()
        total = self.power()
        while True:
            if self.next in ("*", "\\cdot", "\\times"):
                self.take()
                total *= self.signed()
            elif self.next in ("/", "\\div"):
                self.take()
                total /= self.signed()
            elif self.next and self.next not in ("+", "-", ")", "]", "}", "|", "&", ",", "=", "_", "^", "!"):
                mixed = self.next == "\\frac" and self.tokens[self.place - 1].isdigit()
                right = self.power()
                total = total + right if mixed else total * right
            else:
                return total

    def signed(self) -> complex:
        if self.next in ("+", "-"):
            return self.signed() if self.take() == "+" else -self.signed()
        return self.power()

    def power(self) -> complex:
        base = self.term()
        while self.next == "!":
            self.take()
            base = complex(math.factorial(_whole(base)))
        if self.next != "^":
            return base
        self.take()
        exponent = self.argument()
        if abs(exponent) > MAX_POWER:
            raise OverflowError(f"exponent must be at most {MAX_POWER:g}, got {exponent}")
        return complex(base**exponent)

    def argument(self) -> complex:
        """A group in braces, or one number, letter or command."""
        if self.next == "-":
            self.take()
            return -self.argument()
        return self.term()

    def digit(self) -> complex:
        r"""An argument of \frac, which takes one digit where there are no braces."""
        if re.fullmatch(r"\d{2,}", self.next):
            self.tokens[self.place : self.place + 1] = list(self.next)
        return self.argument()

    def group(self, opening: str, closing: str) -> complex:
        self.take(opening)
        inner = self.sum()
        self.take(closing)
        return inner

    def term(self) -> complex:
        if self.next in ("{", "(", "["):
            return self.group(self.next, {"{": "}", "(": ")", "[": "]"}[self.next])
        token = self.take()
        if token[0].isdigit() or token[0] == ".":
            return complex(float(token))
        if token == "\\frac":
            return self.digit() / self.digit()
        if token == "\\binom":
            return complex(math.comb(_whole(self.digit()), _whole(self.digit())))
        if token == "\\sqrt":
            degree = self.group("[", "]") if self.next == "[" else 2
            return complex(self.argument() ** (1 / degree))
        if token[1:] in FUNCTIONS:
            power = self.argument() if self.next == "^" and self.take() else 1
            return complex(FUNCTIONS[token[1:]](self.power()) ** power)
        if token in CONSTANTS:
            return CONSTANTS[token]
        if token.isalpha() or token[1:].isalpha():
            return complex(self.letter(token))
        raise ValueError(f"formula must hold numbers, letters and operators, got {shown(token)}")

    def letter(self, name: str) -> float:
        """A value that depends on the letter and on the point, away from 0 and 1."""
        return 1.3 + math.modf(math.sin(sum(map(ord, name)) * 12.9898 + self.point * 78.233) * 43758.5453)[0] / 2
