"""Shapes and types are checked while tests run, in some calls of every function in every test."""

import pytest
import torch
from jaxtyping import TypeCheckError

from decoding.policies.threshold import Threshold
from decoding.reading import Reading
from tests.shape_checks import sampled, start_test


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
