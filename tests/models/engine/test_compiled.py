"""Tensor programs that a compiler fails on run as they are."""

from __future__ import annotations

import logging

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed

from models.engine.graphs import or_itself

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")  # the compiler warns of torch's own


def failing(seen):
    """A compiler that fails on every program, and notes that it was asked."""

    def compiler(module, inputs):
        seen.append(len(inputs))
        raise AssertionError("sizes differ")

    return compiler


def doubled(x):
    """What is compiled."""
    return 2 * x


def test_a_program_that_the_compiler_fails_on_runs_as_it_is(caplog):
    seen = []
    fast = torch.compile(doubled, backend=failing(seen))
    with pytest.raises(BackendCompilerFailed):
        fast(torch.ones(2))
    seen.clear()
    call = or_itself(fast, doubled)
    with caplog.at_level(logging.WARNING, "models.engine.graphs"):
        for size in (2, 2, 3):
            assert call(torch.ones(size)).tolist() == [2.0] * size
    assert len(seen) == 1  # a compilation takes long: it is not tried again
    assert [one.getMessage() for one in caplog.records if one.name == "models.engine.graphs"] == [
        "engine: doubled runs uncompiled, the compiler failed: AssertionError('sizes differ')"
    ]


def test_other_types_are_compiled_all_the_same():
    asked = []

    def fast(x):
        asked.append(type(x))
        if isinstance(x, float):
            raise BackendCompilerFailed(failing, AssertionError("sizes differ"), None)
        return doubled(x)

    call = or_itself(fast, doubled)
    assert [call(x) for x in (1.5, 2, 1.5, 3)] == [3.0, 4, 3.0, 6]
    assert asked == [float, int, int]


def test_an_error_of_the_program_itself_is_raised():
    def broken(x):
        raise ValueError("x must be positive")

    with pytest.raises(ValueError, match="x must be positive"):
        or_itself(broken, doubled)(1)
