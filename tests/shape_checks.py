"""The check of shapes and types, on the first calls of every function in each test: later ones repeat them at a high price."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jaxtyping

CALLS = 10  # of one function in one test
CHECKED = jaxtyping.jaxtyped  # with a type checker it checks every call
_test = 0


def start_test() -> None:
    """Check the first calls anew."""
    global _test
    _test += 1


def limited(plain: Callable[..., Any], checked: Callable[..., Any]) -> Callable[..., Any]:
    """`checked` for the first calls of a test, `plain` for the rest of it."""
    test, calls = 0, 0

    @functools.wraps(checked)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal test, calls
        __tracebackhide__ = True
        if test != _test:
            test, calls = _test, 0
        calls += 1
        return (checked if calls <= CALLS else plain)(*args, **kwargs)

    return call


def jaxtyped(*, typechecker: Any) -> Callable[[Any], Any]:
    """What the import hook of jaxtyping puts before every function and class of the library."""

    def decorate(made: Any) -> Any:
        if isinstance(made, type):
            plain = vars(made).get("__init__")
            CHECKED(made, typechecker=typechecker)
            if plain is not None and made.__init__ is not plain:
                made.__init__ = limited(plain, made.__init__)
            return made
        checked = CHECKED(made, typechecker=typechecker)
        return checked if isinstance(made, (classmethod, staticmethod, property)) else limited(made, checked)

    return decorate


def install() -> None:
    """Have the import hook use it; before the library is imported."""
    jaxtyping.jaxtyped = jaxtyped
