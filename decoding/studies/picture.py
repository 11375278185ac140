"""What the studies' pictures share: a heading that names the models, and the bars of an interval."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from decoding.comparison.results import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def head(figure: Figure, title: str, models: Iterable[str]) -> None:
    """Write what was measured, and on which models, over all panels."""
    figure.suptitle(f"{title} — {', '.join(models)}")


def whiskers(estimates: Sequence[Row]) -> list[list[float]]:
    """The lengths below and above each estimate that `errorbar` wants for its 95 % interval; it takes none below 0."""
    return [
        [max(0.0, one["estimate"] - one["low"]) for one in estimates],
        [max(0.0, one["high"] - one["estimate"]) for one in estimates],
    ]


def ticks(axes: Any, values: Iterable[int], *, scale: str | None = "log") -> None:
    """Label these values of x alone, as plain numbers."""
    if scale is not None:
        axes.set_xscale(scale)
    places = sorted(set(values))
    axes.set_xticks(places, [str(place) for place in places])
    axes.xaxis.minorticks_off()
