"""The check of shapes and types, on ever rarer calls of every function in each test: a check costs more than most functions."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import is_dataclass
from types import FunctionType
from typing import Any

import jaxtyping
import torch

CHECKED = jaxtyping.jaxtyped  # with a type checker it checks every call
Call = Callable[..., Any]
_calls: Counter[int] = Counter()
_checks: dict[int, Callable[[Call], Call]] = {}  # by identity: code of the same words is equal elsewhere


def start_test() -> None:
    """Count the calls anew."""
    _calls.clear()


def sampled(plain: Call, check: Callable[[Call], Call]) -> Call:
    """`check(plain)` in the 1st, 2nd, 4th, 8th, … call of a test, `plain` in the others.

    `check` is asked when it is first needed. The functions that one inner `def` makes are counted together.
    """
    key, checked = id(plain.__code__), None

    @functools.wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal checked
        __tracebackhide__ = True
        if torch.compiler.is_compiling():  # a compiler follows the function, and no check of it
            return plain(*args, **kwargs)
        _calls[key] += 1
        if _calls[key] & (_calls[key] - 1):
            return plain(*args, **kwargs)
        if checked is None:
            checked = check(plain)
        return checked(*args, **kwargs)

    return call


def shared_check(check: Callable[[Call], Call], plain: Call) -> Call:
    """`check(plain)`, asked once for all functions that one inner `def` makes: to ask costs more than to check a call."""
    if "<locals>" not in plain.__qualname__:
        return check(plain)
    key = id(plain.__code__)  # stays alive with what is kept
    if key not in _checks:
        _checks[key] = of_any(check, plain)
    return _checks[key](plain)


def of_any(check: Callable[[Call], Call], first: Call) -> Callable[[Call], Call]:
    """What checks the calls of `first` and of every function of the same code."""
    called: list[Call] = []

    def forward(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        return called.pop()(*args, **kwargs)

    # where `first` is defined its annotations have their meaning
    named = FunctionType(forward.__code__, first.__globals__, first.__name__, None, forward.__closure__)
    checked = check(functools.wraps(first)(named))

    def checked_as(plain: Call) -> Call:
        def call(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            before = len(called)
            called.append(plain)
            try:
                return checked(*args, **kwargs)
            finally:
                del called[before:]  # where the arguments were refused it is still there

        return call

    return checked_as


def jaxtyped(*, typechecker: Any) -> Callable[[Any], Any]:
    """What the import hook of jaxtyping puts before every function and class of the library."""
    # a function inside of one that is compiled: programs are those of a process without checks
    if torch.compiler.is_compiling():
        return lambda made: made

    def check(plain: Call) -> Call:  # no `partial`, which a compiler that follows an `__init__` cannot take along
        return shared_check(functools.partial(CHECKED, typechecker=typechecker), plain)

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
