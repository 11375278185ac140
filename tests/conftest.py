"""How close two computations of the same numbers must be, on any processor."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

ROUNDINGS = 128  # through two blocks of width 64; 39 is the most that a kernel has shown


@pytest.fixture(scope="session")
def equal_up_to_rounding() -> Callable[[Tensor, Tensor], None]:
    """Compares two orders of summation: they differ by some roundings of the largest number, in its own format."""

    def compare(found: Tensor, expected: Tensor) -> None:
        tolerance = ROUNDINGS * torch.finfo(expected.dtype).eps * expected.abs().max().item()
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)

    return compare
