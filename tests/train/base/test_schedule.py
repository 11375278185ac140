"""Progress and the learning-rate trapezoid."""

from __future__ import annotations

import math

import pytest

from train.base.schedule import learning_rate_factor, progress


@pytest.mark.parametrize(
    ("step", "minutes", "max_steps", "max_minutes", "expected"),
    [
        (5, 0.0, 10, None, 0.5),
        (5, 3.0, None, 4.0, 0.75),
        (5, 1.0, 10, 4.0, 0.5),
        (5, 3.0, 10, 4.0, 0.75),
        (11, 0.0, 10, None, 1.0),
    ],
)
def test_progress_is_the_larger_share(
    step: int, minutes: float, max_steps: int | None, max_minutes: float | None, expected: float
) -> None:
    assert progress(step=step, minutes=minutes, max_steps=max_steps, max_minutes=max_minutes) == expected


@pytest.mark.parametrize(
    ("done", "factor"), [(0.0, 0.0), (0.05, 0.5), (0.1, 1.0), (0.5, 1.0), (0.75, 1.0), (0.875, 0.5), (1.0, 0.0)]
)
def test_trapezoid(done: float, factor: float) -> None:
    assert learning_rate_factor(done, warmup=0.1, decay=0.25) == pytest.approx(factor)


def test_without_warmup_or_decay_it_is_constant() -> None:
    assert [learning_rate_factor(d, warmup=0.0, decay=0.0) for d in (0.0, 0.5, 1.0)] == [1.0, 1.0, 1.0]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="neither"):
        progress(step=0, minutes=0.0, max_steps=None, max_minutes=None)
    for bound in (0.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"^max_minutes must be a finite number above 0, got {bound}$"):
            progress(step=0, minutes=0.0, max_steps=None, max_minutes=bound)
    with pytest.raises(ValueError, match="sum to at most 1"):
        learning_rate_factor(0.5, warmup=0.5, decay=0.6)
    with pytest.raises(ValueError, match="done"):
        learning_rate_factor(1.1, warmup=0.1, decay=0.1)
