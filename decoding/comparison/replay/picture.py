"""Promised against measured loss, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from decoding.comparison.replay.promises import Acceptance
from decoding.files.png import save_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 4
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def draw(found: Sequence[Acceptance], file: Path) -> None:
    """Write the picture as a PNG; needs matplotlib."""
    save_png(picture(found), file)


def picture(found: Sequence[Acceptance]) -> Figure:
    """A panel for each task: the mean and 95th percentile of the true loss over the replays against the promise, by arm."""
    from matplotlib.figure import Figure

    tasks, arms = (list(dict.fromkeys(names)) for names in ([row.task for row in found], [row.arm for row in found]))
    lines = -(-len(tasks) // COLUMNS)
    canvas = Figure(figsize=(3.4 * COLUMNS, 3.2 * lines), layout="constrained")
    for number, task in enumerate(tasks):
        axes = canvas.add_subplot(lines, COLUMNS, number + 1, title=task, xlabel="promised", ylabel="measured")
        most = max(row.max_loss for row in found)
        axes.plot([0, most], [0, most], color="#555555", linewidth=1)
        for arm, colour in zip(arms, COLOURS, strict=False):
            rows = [row for row in found if row.task == task and row.arm == arm and row.true_loss is not None]
            promised, mean, high = (
                [getattr(row, name) for row in rows] for name in ("max_loss", "true_loss", "true_loss_high")
            )
            axes.plot(promised, mean, "o-", color=colour, markersize=3, label=arm)
            axes.plot(promised, high, ":", color=colour)
        axes.set_xlim(0, most)
        if number == 0:
            axes.legend(fontsize="small")
    return canvas
