"""What size and depth of a base do to a head's worth: stored results of `train.trend` in lines up to 32 blocks and 8B.

A unit is a point of training of one base, its figure the mean over some tasks, the same at every unit. Of all choices of tasks
it is the one with most figures: tasks times the units that have them all. A line y = a + b x is fitted over the units, x being
log10 of the parameters, or log2 of the blocks, and read off at the target with its 95 % prediction interval, y(x0) +- t s
sqrt(1 + 1/n + (x0 - mean x)^2 / sum (x - mean x)^2), t of n - 2 degrees of freedom. Points of one base count as independent,
and size and depth grow together over the bases: the interval holds if the trend goes on as it is, and says nothing of whether
it does. A base that solves fewer than a tenth of a task's prompts has no rounds there: a point less than next to nothing is
held by guesses.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import t as student

from decoding.comparison.results import Row
from decoding.studies.inputs import StudyInputs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES: Mapping[str, str] = {
    "accuracy": "accuracy, one token a round",
    "rounds_learned": "rounds at reference, learned / headless",
    "rounds_verified": "rounds at reference, verified / headless",
    "rounds_beam": "rounds at reference, beam / headless",
    "seconds_learned": "seconds a prompt, learned / headless",
    "seconds_verified": "seconds a prompt, verified / headless",
    "headroom": "positions a round, best single commit",
    "explained": "share of the next forward's KL foretold",
    "calibration_error": "calibration error of the confidence",
    "look_ms": "a look's share of a round, milliseconds",
    "look_operations": "a look's share of a round, operations",
}
"""Figure -> what its axis says."""

LEAST = 3  # units for a line
SOLVED = 0.1  # of a task's prompts at one token a round: with fewer, rounds at that accuracy say nothing
AXES: Mapping[str, str] = {"parameters": "parameters", "layers": "blocks"}


def measure(
    inputs: StudyInputs, *, results: str = "docs/results/trend", parameters: float = 8.0e9, layers: int = 32
) -> dict[str, Any]:
    """Read stored results, and extrapolate every figure over parameters and over blocks.

    Args:
        inputs: not used: nothing is decoded.
        results: folder of NAME-POINT.json as `train.trend` writes them.
        parameters: of the base to foretell, above 0.
        layers: blocks of the base to foretell, above 0.

    Raises:
        ValueError: for a folder without results.
    """
    if not parameters > 0 or not layers > 0:
        raise ValueError(f"parameters and layers must be above 0, got {parameters} and {layers}")
    stored = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(Path(results).glob("*-*.json"))]
    stored = [one for one in stored if "look_by_count" in one]
    if not stored:
        raise ValueError(f"results must be a folder with what train.trend stores, got {results}")
    stored.sort(key=lambda one: (one["parameters"], one["point"]))
    rows = [row for one in stored for row in rows_of(one)]
    target = {"parameters": float(parameters), "layers": float(layers)}
    lines = [line for name in FIGURES for axis in AXES if (line := line_of(rows, name, axis, target[axis])) is not None]
    few = len({(row["base"], row["point"]) for row in rows})
    cut = [] if few >= LEAST else [f"no line: {few} points of training are stored, and a line takes {LEAST}"]
    return {"target": target, "rows": rows, "lines": lines, "cut": cut}


def rows_of(stored: Mapping[str, Any]) -> list[Row]:
    """The figures of every task of one stored result; None where there is none."""
    rows = []
    for task, one in stored["tasks"].items():
        best, seconds = one["best"], one["seconds_a_prompt"]
        solved = one["reference"]["accuracy"]["estimate"] >= SOLVED
        rounds = {kind: estimate_of(row["rounds_at_reference"]) for kind, row in best.items() if row and solved}
        seconds = seconds if solved else {}
        row: Row = {name: stored[name] for name in ("base", "point", "parameters", "layers", "share_of_training")}
        row |= {"task": task, "n": one["reference"]["n"], "accuracy": one["reference"]["accuracy"]["estimate"]}
        row |= {"rounds_headless": rounds.get("headless"), "seconds_headless": seconds.get("headless")}
        for kind in ("learned", "verified", "beam"):
            row[f"rounds_{kind}"] = ratio(rounds.get(kind), rounds.get("headless"))
            row[f"seconds_{kind}"] = ratio(seconds.get(kind), seconds.get("headless"))
        row["headroom"] = estimate_of(one["headroom"]["oracle_gain"])
        row["explained"], row["calibration_error"] = estimate_of(one["explained"]), one["calibration_error"]
        row["look_ms"] = one["look_ms"].get("share_of_a_look")
        row["look_operations"] = stored["look_by_count"][task]["uncached"]["operations"] / 100
        rows.append(row)
    return rows


def estimate_of(found: Mapping[str, float] | None) -> float | None:
    """The estimate of a figure with its interval."""
    return None if found is None else found["estimate"]


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """Ours over theirs, where both are there."""
    return None if ours is None or not theirs else ours / theirs


def line_of(rows: Sequence[Row], name: str, axis: str, target: float) -> Row | None:
    """The line of one figure over one axis, and what it foretells; None for too few units or one size alone.

    Args:
        rows: of all units and tasks.
        name: of the figure.
        axis: parameters or layers.
        target: where the line is read off.
    """
    known = {(row["base"], row["point"], row["task"]): row for row in rows if row[name] is not None}
    every = sorted({task for *_, task in known})
    choices = [set(some) for size in range(1, len(every) + 1) for some in combinations(every, size)]
    full = [(units, tasks) for tasks in choices if len(units := units_of(known, tasks)) >= LEAST]
    sizes = {(row["base"], row["point"]): row[axis] for row in rows}
    full = [(units, tasks) for units, tasks in full if len({sizes[one] for one in units}) > 1]
    if not full:
        return None
    units, chosen = max(full, key=lambda one: (len(one[0]) * len(one[1]), len(one[0])))
    tasks = [task for task in dict.fromkeys(row["task"] for row in rows) if task in chosen]
    x = np.array([known[(*one, tasks[0])][axis] for one in units], dtype=float)
    y = np.array([np.mean([known[(*one, task)][name] for task in tasks]) for one in units])
    scale = np.log10 if axis == "parameters" else np.log2
    found = fit_line(scale(x), y, float(scale(target)))
    return None if found is None else {"figure": name, "axis": axis, "units": len(units), "tasks": tasks, **found}


def units_of(known: Collection[tuple[str, int, str]], tasks: Collection[str]) -> list[tuple[str, int]]:
    """The points of training that have a figure on all these tasks."""
    points = dict.fromkeys((base, point) for base, point, _ in known)
    return [one for one in points if all((*one, task) in known for task in tasks)]


def fit_line(x: Any, y: Any, target: float) -> Row | None:
    """Least squares, and the prediction at the target with its 95 % interval; None where x does not vary."""
    spread = float(((x - x.mean()) ** 2).sum())
    if spread < 1e-12:
        return None
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread
    level = float(y.mean() - slope * x.mean())
    free = len(x) - 2
    residual = math.sqrt(float(((y - level - slope * x) ** 2).sum()) / free)
    apart = residual * math.sqrt(1 + 1 / len(x) + (target - float(x.mean())) ** 2 / spread)
    estimate, half = level + slope * target, float(student.ppf(0.975, free)) * apart
    foretold = {"estimate": estimate, "low": estimate - half, "high": estimate + half}
    return {"slope": slope, "level": level, "foretold": foretold}


def draw(result: dict[str, Any], figure: Figure) -> None:
    """A line of two panels for each figure: over parameters and over blocks, a colour a task, and the line with its reach."""
    rows, tasks = result["rows"], list(dict.fromkeys(row["task"] for row in result["rows"]))
    names = [name for name in FIGURES if any(row[name] is not None for row in rows)]
    figure.set_size_inches(11, 2.6 * len(names) + 0.8)
    bases = ", ".join(dict.fromkeys(row["base"] for row in rows))
    title = f"What size and depth do to a head's worth — {bases}; bars: 95 % of a new base"
    figure.suptitle("\n".join(wrap(title, 100)))
    grid = figure.subplots(len(names), len(AXES), squeeze=False)
    for line, name in zip(grid, names, strict=True):
        for axes, (axis, words) in zip(line, AXES.items(), strict=True):
            axes.set_xscale("log")
            for number, task in enumerate(tasks):
                mine = [row for row in rows if row["task"] == task and row[name] is not None]
                axes.plot([r[axis] for r in mine], [r[name] for r in mine], "o", color=f"C{number}", label=task)
            draw_line(axes, result, name, axis)
            axes.set_xlabel(words)
            axes.grid(alpha=0.3)
        line[0].set_ylabel(FIGURES[name], fontsize=8)
    grid[0][0].legend(fontsize=7)


def draw_line(axes: Any, result: Mapping[str, Any], name: str, axis: str) -> None:
    """The line of a figure up to the target, and the interval there.

    Args:
        axes: where to draw.
        result: of the study.
        name: of the figure.
        axis: parameters or layers.
    """
    found = next((one for one in result["lines"] if (one["figure"], one["axis"]) == (name, axis)), None)
    if found is None:
        return
    target, foretold = result["target"][axis], found["foretold"]
    first = min(row[axis] for row in result["rows"])
    scale = math.log10 if axis == "parameters" else math.log2
    axes.plot([first, target], [found["level"] + found["slope"] * scale(at) for at in (first, target)], "k--", lw=1)
    middle = foretold["estimate"]
    axes.errorbar(
        [target], [middle], yerr=[[middle - foretold["low"]], [foretold["high"] - middle]], fmt="ks", capsize=3
    )
