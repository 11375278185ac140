"""The check of shapes and types, on ever rarer calls of every function in each test: a check costs more than most functions."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any

import jaxtyping

CHECKED = jaxtyping.jaxtyped  # with a type checker it checks every call
_calls: Counter[int] = Counter()


def start_test() -> None:
    """Count the calls anew."""
    _calls.clear()


def sampled(plain: Callable[..., Any], check: Callable[[Any], Any]) -> Callable[..., Any]:
    """`check(plain)` in the 1st, 2nd, 4th, 8th, … call of a test, `plain` in the others.

    `check` is asked when it is first needed. The functions that one inner `def` makes are counted together.
    """
    key, checked = id(plain.__code__), None

    @functools.wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal checked
        __tracebackhide__ = True
        _calls[key] += 1
        if _calls[key] & (_calls[key] - 1):
            return plain(*args, **kwargs)
        if checked is None:
            checked = check(plain)
        return checked(*args, **kwargs)

    return call


def jaxtyped(*, typechecker: Any) -> Callable[[Any], Any]:
    """What the import hook of jaxtyping puts before every function and class of the library."""
    check = functools.partial(CHECKED, typechecker=typechecker)

    def decorate(made: Any) -> Any:
        if not isinstance(made, type):
            return sampled(made, check)
        if is_dataclass(made) and "__init__" in vars(made):
            made.__init__.__annotations__.pop("return", None)  # else the parameters are checked again, with the None
            made.__init__ = sampled(made.__init__, check)  # type: ignore[misc]
        return made

    return decorate


def install() -> None:
    """Have the import hook use it; before the library is imported."""
    jaxtyping.jaxtyped = jaxtyped
