"""Shapes and types are checked while tests run, in some calls of every function in every test."""

import inspect
from dataclasses import replace

import pytest
import torch
from beartype import beartype
from jaxtyping import TypeCheckError

from decoding.policies.threshold import Threshold
from decoding.reading import Reading
from decoding.rounds.round import Carry, Sight, first_carry, worked_out
from decoding.state import start
from tests.shape_checks import CHECKED, sampled, shared_check, start_test


def test_the_library_is_checked():
    with pytest.raises(TypeCheckError):
        Reading.empty("three", torch.device("cpu"))
    with pytest.raises(TypeCheckError):
        Threshold("0.9")


def test_ever_rarer_calls_of_every_test_are_checked():
    told = []
    call = sampled(lambda: told.append("plain"), lambda plain: lambda: told.append("checked"))
    for _ in range(2):
        told.clear()
        start_test()
        for _ in range(10):
            call()
        assert [number for number, how in enumerate(told, 1) if how == "checked"] == [1, 2, 4, 8]


def test_functions_of_one_definition_are_counted_together():
    told = []

    def made():
        def inner():
            told.append("plain")

        return inner

    start_test()
    for _ in range(5):
        sampled(made(), lambda plain: lambda: told.append("checked"))()
    assert told == ["checked", "checked", "plain", "checked", "plain"]


def test_functions_of_one_definition_have_one_check_and_each_its_own_values():
    asked = []

    def check(plain):
        asked.append(plain)
        return CHECKED(plain, typechecker=beartype)

    def made(start: int):
        def inner(more: int) -> int:
            if more == 0:
                raise KeyError(start)
            return start + more if more > 0 else str(start)

        return shared_check(check, inner)

    one, two = made(10), made(20)
    for _ in range(2):
        assert (one(1), two(1)) == (11, 21)
        for wrong in ("1", -1):  # what is given, and what comes back
            with pytest.raises(TypeCheckError):
                two(wrong)
        with pytest.raises(KeyError, match="20"):
            two(0)
    assert len(asked) == 1


def test_what_is_compiled_is_followed_without_a_break_or_a_check():
    """A program in pieces is another one than a process without checks compiles."""
    state = start(torch.tensor([[5, 6, 1, 1]]), gen_length=2, block_length=2, mask_id=1, eos_id=None)
    reading = Reading.empty((1, 1, 4), torch.device("cpu"))
    rows = torch.tensor([[[False, False, True, True]]])
    sight = Sight(replace(reading, rows=rows, token=torch.full((1, 1, 4), 7)), torch.tensor([1]), torch.tensor([4]))
    given = (Threshold(0.9), first_carry(state, 1), sight, 0)
    expected = worked_out(*given)
    found = torch.compile(inspect.unwrap(worked_out), backend="eager", fullgraph=True)(*given)
    assert torch.equal(found.canvases.tokens, expected.canvases.tokens)
    assert expected.canvases.tokens.tolist() == [[[5, 6, 7, 1]]]
    put = torch.compile(inspect.unwrap(Carry.where), backend="eager", fullgraph=True)  # with a function inside
    both = put(found, torch.tensor([True]), first_carry(state, 1))
    assert torch.equal(both.canvases.tokens[:, 0], state.tokens)
