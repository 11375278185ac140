"""Every decoder on the exact Block-HMM of arXiv 2602.00286: what each loses against the joint distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from decoding.studies.bench import Bench

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def measure(bench: Bench, *, samples: int = 2000) -> dict[str, Any]:
    """Run it.

    Args:
        samples: sequences drawn.
    """
    return {"exact": []}


def draw(result: dict[str, Any], figure: Figure) -> None:
    """Draw it."""
    figure.add_subplot()
