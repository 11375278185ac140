"""The picture of bits and rounds: rounds against bits for every f, and measured rounds against the bound for every task."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from decoding.studies.picture import head

if TYPE_CHECKING:
    from matplotlib.figure import Figure


COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")
MARKERS = "osD^vP*X"


def draw(result: dict[str, Any], figure: Figure) -> None:
    """Rounds against bits for every f, and measured rounds against the bound for every task."""
    figure.set_size_inches(13, 6)
    head(figure, "Bits and rounds under the factor rule, a point a sequence", result["models"])
    left, right = figure.subplots(1, 2)
    factors = list(dict.fromkeys(row["factor"] for row in result["rows"]))
    tasks = list(dict.fromkeys(row["task"] for row in result["sequences"]))
    for factor, colour in zip(factors, COLOURS, strict=False):
        points = [row for row in result["sequences"] if row["factor"] == factor]
        bits = [row["nll"] / math.log(2) for row in points]
        fit = next(row for row in reversed(result["rows"]) if row["factor"] == factor)
        label = f"f = {factor:g}"
        if fit["pearson"] is not None:
            label += f": r = {fit['pearson']['estimate']:.2f}, {fit['slope']['estimate']:.2f} rounds a bit"
            middle = sum(bits) / len(bits), sum(row["exploit_rounds"] for row in points) / len(points)
            ends = [min(bits), max(bits)]
            left.plot(ends, [middle[1] + fit["slope"]["estimate"] * (x - middle[0]) for x in ends], color=colour)
        left.scatter(bits, [row["exploit_rounds"] for row in points], s=14, color=colour, alpha=0.6, label=label)
    left.set(xlabel="-log2 p(x) along the decoded order [bits]", ylabel="exploitation rounds")
    left.set_title("Bits against rounds, all tasks together")
    for index, task in enumerate(tasks):
        points = [row for row in result["sequences"] if row["task"] == task]
        marks = {"marker": MARKERS[index % len(MARKERS)], "s": 22, "alpha": 0.6, "color": f"C{index}"}
        name = f"{task} ({len(points)} sequences)"
        right.scatter([row["bound"] for row in points], [row["exploit_rounds"] for row in points], label=name, **marks)
    top = max(max(row["bound"], row["exploit_rounds"]) for row in result["sequences"]) * 1.1 + 1
    right.plot([0, top], [0, top], color="black", linewidth=1, label="measured = bound")
    right.set(xlabel="bound of theorem 3.2 [rounds]", ylabel="exploitation rounds measured", xscale="symlog")
    right.set(yscale="symlog", title="Below the line: the bound is broken")
    marked = [0, *(2**power for power in range(int(top).bit_length()))]
    for axis in (right.xaxis, right.yaxis):
        axis.set_ticks(marked, [str(one) for one in marked])
    for axes, place in ((left, "best"), (right, "lower right")):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc=place)
