"""How a complaint shows what it got: on one line, and a long value cut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

LONGEST = 120  # characters of a value that is shown


def shown(value: object) -> str:
    """A value as Python writes it, on one line, a long one cut."""
    try:
        return cut(repr(value))
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return f"{type(value).__name__} with too many digits"


def listed(names: Iterable[object]) -> str:
    """Names with commas between them, a long list cut."""
    return cut(", ".join(map(str, names)))


def first_difference(now: Mapping[str, Any], then: Mapping[str, Any]) -> str | None:
    """The first name, those of `now` before what `then` alone has, whose values differ; one that is missing is None."""
    return next((name for name in {**now, **then} if now.get(name) != then.get(name)), None)


def cut(text: str, longest: int = LONGEST) -> str:
    """A text on one line of at most so many characters: of a longer one the middle is left out."""
    line = " ".join(text.split())
    if len(line) <= longest:
        return line
    return f"{line[: longest * 2 // 3]} ... {line[5 - (longest - longest * 2 // 3) :]}"
