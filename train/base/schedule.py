"""How far a run is, and the learning rate that belongs there."""

from __future__ import annotations

import math
from collections.abc import Mapping


def progress(*, step: int, minutes: float, max_steps: int | None, max_minutes: float | None) -> float:
    """Fraction of a run that is over: the larger of steps and minutes, at most 1.

    Args:
        step: optimiser steps done.
        minutes: training minutes done.
        max_steps: steps of the whole run, if bounded.
        max_minutes: minutes of the whole run, if bounded.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: if neither bound is given, or one is out of range.
    """
    if max_steps is None and max_minutes is None:
        raise ValueError("max_steps or max_minutes must be given, got neither")
    require_bounds({"max_minutes": max_minutes}, {"max_steps": max_steps})
    by_step = 0.0 if max_steps is None else step / max_steps
    by_time = 0.0 if max_minutes is None else minutes / max_minutes
    return min(1.0, max(by_step, by_time))


def require_bounds(minutes: Mapping[str, float | None], counts: Mapping[str, int | None]) -> None:
    """Refuse minutes that are not finite or not above 0, and counts below 1; None is no bound.

    Args:
        minutes, counts: name -> value.

    Raises:
        ValueError: naming the first.
    """
    for name, value in minutes.items():
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be a finite number above 0, got {value}")
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")


def learning_rate_factor(done: float, *, warmup: float, decay: float) -> float:
    """Trapezoid: linear up over the first ``warmup``, one, linear down to zero over the last ``decay``.

    Args:
        done: progress in [0, 1].
        warmup: fraction of the run, in [0, 1].
        decay: fraction of the run, in [0, 1]; warmup + decay is at most 1.

    Returns:
        A factor in [0, 1].

    Raises:
        ValueError: if a fraction is out of range.
    """
    if not (0 <= warmup and 0 <= decay and warmup + decay <= 1):
        raise ValueError(f"warmup and decay must be fractions that sum to at most 1, got {warmup} and {decay}")
    if not 0 <= done <= 1:
        raise ValueError(f"done must be in [0, 1], got {done}")
    up = done / warmup if done < warmup else 1.0
    down = (1 - done) / decay if done > 1 - decay else 1.0
    return min(up, down)
