"""Draw stored comparisons side by side: python -m train.overview --results FOLDER --picture FILE.png"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REFERENCE = "sequential"
STYLES: dict[str, dict[str, Any]] = {  # arm -> its line; headless arms in greys, learned ones in colour
    "threshold": {"color": "0.65", "marker": "s", "label": "threshold (Fast-dLLM)"},
    "ete": {"color": "0.35", "marker": "v", "label": "beam Explore-Then-Exploit"},
    "learned": {"color": "C0", "marker": "o", "label": "learned"},
    "learned-ete": {"color": "C1", "marker": "D", "label": "learned-ete"},
}


def overview(results: Path, picture: Path, tasks: str = "sudoku,countdown3,gsm8k-renumbered") -> None:
    """Draw accuracy against rounds of the arms that the README names, one panel a task.

    Args:
        results: folder that holds TASK.json.gz, the comparison.json of each task.
        picture: the PNG that is written.
        tasks: names of tasks, with commas between them.

    Raises:
        ValueError: if a task has no file in the folder.
    """
    from decoding.files.png import save_png

    names = [name.strip() for name in tasks.split(",")]
    missing = [name for name in names if not (results / f"{name}.json.gz").is_file()]
    if missing:
        raise ValueError(f"results must be a folder with {missing[0]}.json.gz, got {results}")
    comparisons = {name: json.loads(gzip.decompress((results / f"{name}.json.gz").read_bytes())) for name in names}
    save_png(draw(comparisons), picture, dpi=100)


def draw(comparisons: dict[str, dict[str, Any]]) -> Figure:
    """One panel a task: the curves of STYLES on the test split, and the reference as a dotted line at its accuracy."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(comparisons), 3.3), layout="constrained")
    panels = figure.subplots(1, len(comparisons), squeeze=False)[0]
    for axes, (task, comparison) in zip(panels, comparisons.items(), strict=True):
        rows = [row for row in comparison["results"] if row["split"] == "test"]
        axes.set_xscale("log", subs=(2, 3, 5, 7))
        for arm, style in STYLES.items():
            points = curve(rows, arm)
            if points:
                axes.plot(*zip(*points, strict=True), **style, markersize=4)
        ((rounds, accuracy),) = curve(rows, REFERENCE)
        axes.axhline(accuracy, color="black", linestyle=":", linewidth=1, label="one token a round (reference)")
        axes.set(title=f"{task}, reference {rounds:.0f} rounds", xlabel="rounds", ylim=(max(0, accuracy - 0.2), None))
        axes.title.set_fontsize("small")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
    panels[0].set_ylabel("accuracy")
    lines: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        lines |= dict(zip(labels, handles, strict=True))
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=len(lines), fontsize="small")
    return figure


def curve(rows: list[dict[str, Any]], arm: str) -> list[tuple[float, float]]:
    """(rounds, accuracy) of every setting of an arm, by rounds."""
    return sorted((row["rounds"]["estimate"], row["accuracy"]["estimate"]) for row in rows if row["arm"] == arm)


if __name__ == "__main__":
    from train.commands.command_line import run

    run(overview)
