"""Shapes and types are checked while tests run, in some calls of every function in every test."""

import pytest
import torch
from beartype import beartype
from jaxtyping import TypeCheckError

from decoding.policies.threshold import Threshold
from decoding.reading import Reading
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
