"""Which decoders run on which prompts of a table of outcomes, and in what order; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from decoding.comparison.arms import Arm, select

if TYPE_CHECKING:
    from train.outcomes.jobs import Job


def require_positive(numbers: Mapping[str, int | None]) -> None:
    """Refuse numbers under 1; None, which stands for a default, is let be.

    Raises:
        ValueError: naming the first.
    """
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def select_named(catalogue: Sequence[Arm], arms: str | None, *, has_head: bool) -> list[Arm]:
    """The arms that run: all that can, or those named and no others."""
    running, _ = select(catalogue, arms, has_head=has_head)
    wanted = None if arms is None else [name.strip() for name in arms.split(",")]
    return [arm for arm in running if wanted is None or arm.name in wanted]


def order_jobs(
    arms: Sequence[Arm], everywhere: Sequence[str], sizes: Mapping[str, tuple[int, int]], slice_size: int
) -> list[Job]:
    """The pieces of work, those of arms that run on all prompts first.

    Args:
        arms: in their order.
        everywhere: names of those that run on all prompts.
        sizes: task -> its prompts, and those that every arm runs on.
        slice_size: prompts of a piece.
    """
    from train.outcomes.jobs import jobs_of

    return [
        job
        for arm in sorted(arms, key=lambda arm: arm.name not in everywhere)
        for name, counts in sizes.items()
        for job in jobs_of(name, arm, counts[arm.name not in everywhere], slice_size=slice_size)
    ]
