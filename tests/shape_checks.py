"""The check of shapes and types, on ever rarer calls of every function in each test: a check costs more than most functions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any

import jaxtyping

CHECKED = jaxtyping.jaxtyped  # with a type checker it checks every call
_test = 0


def start_test() -> None:
    """Count the calls anew."""
    global _test
    _test += 1


def sampled(plain: Callable[..., Any], check: Callable[[Any], Any]) -> Callable[..., Any]:
    """`check(plain)` in the 1st, 2nd, 4th, 8th, … call of a test, `plain` in the others; made at the first call of all."""
    test, calls, checked = 0, 0, None

    @functools.wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal test, calls, checked
        __tracebackhide__ = True
        if test != _test:
            test, calls = _test, 0
        calls += 1
        if calls & (calls - 1):
            return plain(*args, **kwargs)
        if checked is None:
            checked = check(plain)
        return checked(*args, **kwargs)

    return call


def jaxtyped(*, typechecker: Any) -> Callable[[Any], Any]:
    """What the import hook of jaxtyping puts before every function and class of the library."""

    check = functools.partial(CHECKED, typechecker=typechecker)

    def decorate(made: Any) -> Any:
        if isinstance(made, type):
            if is_dataclass(made) and "__init__" in vars(made):
                made.__init__ = sampled(made.__init__, check)  # type: ignore[misc]
            return made
        if isinstance(made, (classmethod, staticmethod)):
            return type(made)(sampled(made.__func__, check))
        if isinstance(made, property):
            return property(sampled(made.fget, check), made.fset, made.fdel, made.__doc__)
        return sampled(made, check)

    return decorate


def install() -> None:
    """Have the import hook use it; before the library is imported."""
    jaxtyping.jaxtyped = jaxtyped
