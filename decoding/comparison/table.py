"""A comparison for people: the A/B table of every task, and its curves as a picture."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decoding.comparison.arms import LEARNED, RANDOM
from decoding.comparison.compare import Comparison
from decoding.comparison.results import RIVAL, Row
from decoding.files.png import save_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEAD = ("arm", "dial", "accuracy %", "rounds", "sequence forwards", "token positions", "ms a prompt")
AGAINST = (f"rounds / {RIVAL}", f"forwards / {RIVAL}", f"accuracy − {RIVAL}")
NARROW = 100
TERMINAL = (0, 1, 2, 3, 4, 6)  # columns of HEAD that a terminal shows
UNREACHED = "\\* no setting within one point of the reference on dev; the most accurate one there is shown."


def table(comparison: Comparison, *, narrow: bool = False) -> str:
    """Markdown: for each task every arm at the setting chosen on dev, against beam ETE, on the test split.

    Args:
        comparison: what was measured.
        narrow: for a terminal: aligned, of the arms' own figures as many as fit, and wrapped to NARROW columns.
    """
    return "\n".join(_of_task(comparison, task, narrow=narrow) for task in tasks(comparison))


def tasks(comparison: Comparison) -> list[str]:
    """The tasks compared, in order."""
    return list(dict.fromkeys(row["task"] for row in (*comparison.results, *comparison.parity)))


def _of_task(comparison: Comparison, task: str, *, narrow: bool) -> str:
    curves = {row["arm"]: row for row in comparison.curves if row["task"] == task}
    pairs = {row["a"]: row for row in comparison.pairs if row["task"] == task and row["b"] == RIVAL}
    shown = [
        row
        for row in comparison.results
        if (row["task"], row["split"]) == (task, "test")
        and (row["arm"] not in curves or row["dial"] == curves[row["arm"]]["dial_shown"])
    ]
    if narrow:
        pairs = {}
    head: tuple[str, ...] = HEAD + AGAINST if pairs else HEAD
    rows = [_cells(row, curves.get(row["arm"]), pairs.get(row["arm"])) for row in shown]
    sentences = [row["sentence"] for row in comparison.verdicts if row["task"] == task]
    if any(row["rounds_at_reference"] is None for row in curves.values()):
        sentences.append(UNREACHED)
    sentences += [_parity(row) for row in comparison.parity if row["task"] == task]
    grid = [head, ("---",) * len(head), *(row + [""] * (len(head) - len(row)) for row in rows)] if rows else []
    lines = [f"| {' | '.join(cells)} |" for cells in grid]
    if narrow:
        lines = aligned([[row[i].replace("\\", "") for i in TERMINAL] for row in (list(head), *rows)]) if rows else []
        sentences = [_wrapped(sentence.replace("\\", "")) for sentence in sentences]
    return "\n".join([f"## {_title(task, shown)}", "", *lines, "", *(f"- {sentence}" for sentence in sentences), ""])


def _wrapped(sentence: str) -> str:
    return textwrap.fill(sentence, NARROW - 2, subsequent_indent="  ", break_on_hyphens=False)


def aligned(grid: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text as columns, the first to the left; columns at the right that pass NARROW are left out."""
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    ends = [end - 2 for end in itertools.accumulate(width + 2 for width in widths)]
    fits = max(1, sum(end <= NARROW for end in ends))
    widths = [min(widths[0], NARROW), *widths[1:fits]]
    found = []
    for row in grid:
        first, *rest = (cell[:width] for cell, width in zip(row, widths, strict=False))
        found.append("  ".join([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))]))
    return [line.rstrip() for line in found]


def _cells(row: Row, curve: Row | None, pair: Row | None) -> list[str]:
    mark = r"\*" if curve is not None and curve["rounds_at_reference"] is None else ""
    cells = [row["arm"] + mark, "" if row["dial"] is None else f"{row['dial']:g}", figure(row["accuracy"], scale=100.0)]
    cells += [figure(row["rounds"]), figure(row["sequence_forwards"])]
    cells += [f"{row['token_positions']['estimate']:.0f}", f"{1000 * row['seconds']:.0f}"]
    if pair is not None:
        cells += [figure(pair["rounds_ratio"], digits=2), figure(pair["sequence_forwards_ratio"], digits=2)]
        cells += [figure(pair["accuracy_difference"], scale=100.0)]
    return cells


def figure(estimate: Row | None, *, scale: float = 1.0, digits: int = 1) -> str:
    """An estimate with its interval in brackets."""
    if estimate is None:
        return "none"
    middle, low, high = (f"{scale * estimate[name]:.{digits}f}" for name in ("estimate", "low", "high"))
    return f"{middle} [{low}, {high}]"


def _parity(row: Row) -> str:
    if row["operating_point"] is None:
        return f"{row['task']} is no parity task: at none of {len(row['points'])} points do branches save rounds."
    point = ", ".join(f"{name} {value}" for name, value in row["operating_point"].items())
    sentences = [f"operating point: {point}"]
    for name, judged in row.items():
        if isinstance(judged, dict) and "kept" in judged:
            lost = [line for line, kept in judged["kept"].items() if line != "all" and kept is False]
            gated = judged["kept"].get("sequence_forwards", True) is None
            every = "both lines that a gated arm has" if gated else "all three lines"
            sentences.append(f"{name} " + (f"misses {', '.join(lost)}" if lost else f"keeps {every}"))
    if "beats_random" in row:
        sentences.append(f"{LEARNED} needs {'' if row['beats_random'] else 'no '}fewer rounds than {RANDOM}")
    return "; ".join(sentences) + "."


COLOURS = tuple("C0 C1 C2 C3 C4 C5 C6 C7 C8 C9 black navy gold darkgreen maroon deepskyblue".split())
MARKERS = "osD^vP*X<>hpd8H."
LINES = {False: ("-", "-."), True: ("--", ":")}  # told apart by COMPARED_WITH; the second once the colours are used up
COMPARED_WITH = ("control", "ceiling")


def styles(kinds: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Arm -> colour, marker and line style, no two alike up to 32 arms; controls and ceilings are dashed.

    Args:
        kinds: arm -> its kind, in the order of the legend.

    Returns:
        Keywords of matplotlib's `plot`.
    """
    chosen = {}
    for index, (arm, kind) in enumerate(kinds.items()):
        again, which = divmod(index, len(COLOURS))
        lines = LINES[kind in COMPARED_WITH]
        chosen[arm] = {"color": COLOURS[which], "marker": MARKERS[which], "linestyle": lines[again % len(lines)]}
    return chosen


def plot(comparison: Comparison, out: Path) -> list[Path]:
    """Draw accuracy against rounds for each task, one PNG each; nothing without matplotlib or curves."""
    if find_spec("matplotlib") is None or not comparison.curves:
        return []
    files = []
    for task in tasks(comparison):
        files.append(out / f"{task}.png")
        save_png(picture(comparison, task), files[-1])
    return files


def picture(comparison: Comparison, task: str) -> Figure:
    """Accuracy against rounds on the test split of one task, a line an arm; the legend stands beside the axes."""
    from matplotlib.figure import Figure

    rows = [row for row in comparison.results if (row["task"], row["split"]) == (task, "test")]
    canvas = Figure(figsize=(9, 5), layout="constrained")
    axes = canvas.add_subplot(xlabel="rounds", ylabel="accuracy", title=_title(task, rows))
    axes.set_xscale("log", subs=(2, 3, 4, 5, 7))
    for arm, style in styles({row["arm"]: row["kind"] for row in rows}).items():
        points = sorted((row["rounds"]["estimate"], row["accuracy"]["estimate"]) for row in rows if row["arm"] == arm)
        axes.plot(*zip(*points, strict=True), **style, label=arm)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    canvas.legend(loc="outside right upper", handlelength=3.5)  # wide enough for dashes around the marker
    return canvas


def _title(task: str, rows: list[Row]) -> str:
    """The task and its number of test prompts."""
    return f"{task}, {rows[0]['n']} test prompts" if rows else task
