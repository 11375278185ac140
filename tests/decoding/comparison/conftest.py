"""A comparison that has run, once for the tests of a file."""

from __future__ import annotations

import pytest

from decoding.comparison.compare import Comparison
from tests.decoding.comparison.small_comparison import (
    compared,
)


@pytest.fixture(scope="module")
def found() -> Comparison:
    return compared()
