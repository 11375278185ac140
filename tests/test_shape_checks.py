"""Shapes and types are checked while tests run, in the first calls of every test."""

import pytest
import torch
from jaxtyping import TypeCheckError

from decoding.policies.threshold import Threshold
from decoding.reading import Reading
from tests.shape_checks import CALLS, limited, start_test


def test_the_library_is_checked():
    with pytest.raises(TypeCheckError):
        Reading.empty("three", torch.device("cpu"))
    with pytest.raises(TypeCheckError):
        Threshold("0.9")


def test_the_first_calls_of_every_test_are_checked():
    told = []
    call = limited(lambda: told.append("plain"), lambda: told.append("checked"))
    for _ in range(2):
        start_test()
        for _ in range(CALLS + 2):
            call()
    assert told == [*["checked"] * CALLS, "plain", "plain"] * 2
