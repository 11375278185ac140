"""What is asked of everything that reads what others wrote: a value, or one ValueError of one sentence, within seconds."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

Value = TypeVar("Value")

SCALE = float(os.environ.get("FUZZ", "1"))
"""How many times the cases of the gate are tried; `make fuzz` sets it."""
SECONDS = 10
LONGEST = 2000  # characters of a sentence


class Hang(BaseException):
    """A case took longer than SECONDS."""


def cases(count: int) -> settings:
    """Settings of a property that the gate tries `count` times: the same cases in every run."""
    return settings(
        max_examples=max(1, int(count * SCALE)),
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate),  # a case that hangs is not made smaller by running it again
    )


@contextmanager
def in_time() -> Iterator[None]:
    """Raise `Hang` where the block takes longer than SECONDS."""

    def late(number: int, frame: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def value_or_sentence(call: Callable[[], Value]) -> Value | None:
    """What a call returns; None where it refuses in one sentence. Whatever else it raises is a failure."""
    with in_time():
        try:
            return call()
        except ValueError as error:
            said, kind = str(error), type(error).__name__
    assert said.strip(), f"an empty {kind}"
    assert "\n" not in said, f"more than one line: {said}"
    assert len(said) <= LONGEST, f"{len(said)} characters: {said[:200]}"
    return None


LETTERS = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00")
    | st.sampled_from(" \t|{}[]\"',:.#&*-+=0123456789$\\`\u2028é"),
    max_size=40,
)
ANY_TEXT = LETTERS | st.text(max_size=10) | st.sampled_from(["", " ", "\ud800", "\x00", "null", "NaN", "1" * 5000])
NUMBERS = st.integers() | st.integers(-3, 40) | st.floats() | st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400])
SCALARS = st.none() | st.booleans() | NUMBERS | ANY_TEXT
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(LETTERS, inner, max_size=4), max_leaves=8
)
"""What JSON can hold, and what Python's own writer lets through."""
DEEP = st.sampled_from(["[" * 100_000, '{"a":' * 20_000, "[" * 500 + "]" * 500])


def exit_code(call: Any) -> Any:
    """What a command leaves; 0 where it returns."""
    try:
        call()
    except SystemExit as stopped:
        return stopped.code
    return 0
