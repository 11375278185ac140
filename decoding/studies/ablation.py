"""What each part of Explore-Then-Exploit is worth, and how much its settings matter: experiment 2 of arXiv 2511.21103.

Targeted exploration off, implicit exploration off, both on; then one setting at a time away from `base`, and if asked a full
grid. All cells see the same prompts, so every comparison with `both` is paired.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from decoding.comparison.arms import Arm
from decoding.comparison.curves import Array, ratio_of_means
from decoding.comparison.results import Row, estimate
from decoding.comparison.runner import Runner
from decoding.studies.inputs import StudyInputs
from decoding.studies.picture import head, whiskers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODES: Mapping[str, Mapping[str, bool]] = {
    "neither": {"implicit": False, "targeted": False},
    "implicit only": {"implicit": True, "targeted": False},
    "targeted only": {"implicit": False, "targeted": True},
    "both": {"implicit": True, "targeted": True},
}
SWEEPS: Mapping[str, Sequence[Any]] = {
    "threshold": (0.7, 0.9, 0.98, 0.998),
    "branches": (1, 2, 4, 8),
    "step_budget": (4, 8, 16, None),
    "gamma": (0.3, 0.5, 0.7, 0.9),
    "alpha": (0.0, 1.0, 4.0),
    "candidate_rule": ("nearest", "band", "information"),
}
SYMBOLS = {"threshold": "C", "branches": "k", "step_budget": "N"}


def measure(
    inputs: StudyInputs,
    *,
    tasks: tuple[str, ...] = ("countdown3", "sudoku"),
    prompts: int = 12,
    base: dict[str, Any] | None = None,
    sweeps: dict[str, list[Any]] | None = None,
    grid: dict[str, list[Any]] | None = None,
    batch_size: int | None = None,
) -> dict[str, Any]:
    """Run every variant of `ete` on the same prompts.

    Args:
        inputs: base, prompts, device and seed, from the command.
        tasks: names of tasks.
        prompts: test prompts of each task.
        base: settings of `ete` that all cells share where they do not sweep them; default gamma 0.7, at which it explores.
        sweeps: setting -> values, one at a time; default threshold, branches, step_budget, gamma, alpha and candidate_rule.
        grid: setting -> values, all combinations; default none.
        batch_size: prompts at a time; default 16 on the CPU, 512 on a GPU.
    """
    base = {"gamma": 0.7} if base is None else base
    sweeps = {name: list(values) for name, values in SWEEPS.items()} if sweeps is None else sweeps
    denoiser = inputs.denoiser()
    rows = []
    for task in tasks:
        runner = inputs.runner(denoiser, inputs.problems(task, prompts), batch_size=batch_size)
        rows += task_rows(runner, base, sweeps, grid or {})
    cut = [f"{prompts} prompts a task; the full config takes 200"] if prompts < 200 else []
    return {"base": base, "rows": rows, "cut": cut + ([] if grid else ["no grid: one setting at a time"])}


def task_rows(
    runner: Runner, base: Mapping[str, Any], sweeps: Mapping[str, Sequence[Any]], grid: Mapping[str, Sequence[Any]]
) -> list[Row]:
    """One row for the reference, for every mode, every value of a sweep and every point of the grid.

    Args:
        runner: of the task.
        base: settings that every arm shares.
        sweeps: setting -> its values, one at a time.
        grid: setting -> its values, all combinations; empty for none.
    """
    both = {**base, **MODES["both"]}
    cells: list[tuple[str, Any, dict[str, Any]]] = [("mode", name, {**base, **mode}) for name, mode in MODES.items()]
    cells += [(name, value, {**both, name: value}) for name, values in sweeps.items() for value in values]
    points = [dict(zip(grid, point, strict=True)) for point in itertools.product(*grid.values())] if grid else []
    cells += [("grid", point, {**both, **point}) for point in points]
    arms = [Arm(f"{swept} {value}", "headless", "ete", settings=settings) for swept, value, settings in cells]
    reference = Arm("sequential", "headless", "sequential")
    runner.run([reference, *arms], "test")
    tables = [runner.ledger.table("test", runner.cells_of(arm)[0]) for arm in (reference, *arms)]
    against = tables[1 + list(MODES).index("both")]
    weights = runner.weights("test")
    measured = [("reference", "sequential"), *((swept, value) for swept, value, _ in cells)]
    return [
        {"task": runner.problems.task, "swept": swept, "value": value, **figures(weights, table, against)}
        for (swept, value), table in zip(measured, tables, strict=True)
    ]


def figures(weights: Array, table: Mapping[str, Array], against: Mapping[str, Array]) -> Row:
    """What a cell cost and got right, and the paired comparison with `both`."""
    return {
        "n": weights.shape[1],
        "accuracy": estimate(weights @ table["right"]),
        "rounds": estimate(weights @ table["rounds"]),
        "sequence_forwards": estimate(weights @ table["sequence_forwards"]),
        "explored_share": estimate(ratio_of_means(weights, table["explored"], table["rounds"])),
        "rounds_ratio": estimate(ratio_of_means(weights, table["rounds"], against["rounds"])),
        "forwards_ratio": estimate(ratio_of_means(weights, table["sequence_forwards"], against["sequence_forwards"])),
        "accuracy_difference": estimate(weights @ (table["right"] - against["right"])),
    }


def draw(result: dict[str, Any], figure: Figure) -> None:
    """A line of panels for each task: accuracy and rounds over the modes, then over the values of every sweep."""
    rows = [row for row in result["rows"] if row["swept"] not in ("reference", "grid")]
    tasks, swept = (list(dict.fromkeys(row[key] for row in rows)) for key in ("task", "swept"))
    figure.set_size_inches(max(8, 2.7 * len(swept) + 1), 3.3 * len(tasks) + 0.8)
    title = f"Explore-Then-Exploit, one setting at a time from {settings_in_words(result['base'])}"
    head(figure, f"{title}; rounds in orange, 95 % intervals", result["models"])
    grid = figure.subplots(len(tasks), len(swept), squeeze=False)
    for line, task in zip(grid, tasks, strict=True):
        careful = next(row for row in result["rows"] if row["task"] == task and row["swept"] == "reference")
        most = max(row["rounds"]["high"] for row in rows if row["task"] == task)
        for axes, name in zip(line, swept, strict=True):
            points = [row for row in rows if row["task"] == task and row["swept"] == name]
            panel(axes, points, careful["accuracy"]["estimate"], most)
            axes.set_title(f"{name} ({SYMBOLS[name]})" if name in SYMBOLS else name, fontsize=10)
        line[0].legend(fontsize=7, loc="lower left")
        line[0].set_ylabel(f"{task} (n = {careful['n']})\naccuracy", color="tab:blue")


def panel(axes: Any, points: Sequence[Row], reference: float, most: float) -> None:
    """Accuracy on the left axis, rounds on the right one, over the values of one setting.

    Args:
        axes: where to draw.
        points: rows of one setting.
        reference: the row of one token a round.
        most: end of the axis of rounds.
    """
    places = list(range(len(points)))
    other = axes.twinx()
    for on, name, colour, shift in ((axes, "accuracy", "tab:blue", -0.08), (other, "rounds", "tab:orange", 0.08)):
        estimates = [row[name] for row in points]
        x, y = [tick + shift for tick in places], [one["estimate"] for one in estimates]
        on.errorbar(x, y, yerr=whiskers(estimates), fmt="o-", color=colour, markersize=4, capsize=2)
    axes.axhline(reference, color="tab:blue", linestyle=":", linewidth=1, label="accuracy, sequential")
    axes.set(ylim=(-0.05, 1.05), xlim=(-0.5, len(points) - 0.5))
    labels = ["none" if row["value"] is None else str(row["value"]) for row in points]
    axes.set_xticks(places, labels, rotation=40 if max(map(len, labels)) > 6 else 0, fontsize=8)
    other.set(ylim=(0, 1.1 * most))
    other.set_ylabel("rounds", color="tab:orange", fontsize=8)
    axes.grid(alpha=0.3)


def settings_in_words(base: Mapping[str, Any]) -> str:
    """The settings that differ from the policy's own defaults."""
    return ", ".join(f"{name} {value}" for name, value in base.items()) or "the defaults"
