# mypy: disable-error-code="import-not-found"
"""Kernels written in Triton, for CUDA."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import triton


def jit(function: Callable[..., Any]) -> Any:
    """Triton's `jit` of the function itself, whatever a check of shapes has been put before it: Triton reads its source."""
    return triton.jit(inspect.unwrap(function))
