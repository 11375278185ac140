"""The picture of a comparison: every arm told apart, what it is compared with dashed, its prompts counted."""

from __future__ import annotations

import pytest

from decoding.comparison.compare import Comparison
from decoding.comparison.table import NARROW, aligned, picture, plot, styles, table


def row(arm: str, kind: str, rounds: float, *, split: str = "test", n: int = 2000, task: str = "sums") -> dict:
    found = {"task": task, "arm": arm, "kind": kind, "split": split, "n": n}
    return found | {"accuracy": {"estimate": 0.5}, "rounds": {"estimate": rounds}}


ROWS = [
    row("sequential", "headless", 9.0),
    row("learned", "learned", 5.0),
    row("learned", "learned", 3.0),
    row("learned", "learned", 7.0, split="dev", n=40),
    row("learned", "learned", 8.0, task="other"),
    row("shuffled", "control", 6.0),
    row("practical-ceiling", "ceiling", 2.0),
]


def test_sixteen_arms_differ_in_colour_and_in_marker() -> None:
    found = list(styles({f"arm {i}": "headless" for i in range(16)}).values())
    assert len({style["color"] for style in found}) == len({style["marker"] for style in found}) == 16
    assert {style["linestyle"] for style in found} == {"-"}


@pytest.mark.parametrize("kind", ["headless", "control"])
def test_thirty_two_arms_are_never_alike(kind: str) -> None:
    found = styles({f"arm {i}": kind for i in range(32)}).values()
    assert len({tuple(style.values()) for style in found}) == 32


def test_controls_and_ceilings_alone_are_dashed() -> None:
    found = styles({"a": "headless", "b": "learned", "c": "control", "d": "ceiling"})
    assert [style["linestyle"] for style in found.values()] == ["-", "-", "--", "--"]


def test_the_picture_shows_the_test_split_of_its_task_and_counts_its_prompts() -> None:
    pytest.importorskip("matplotlib")
    axes = picture(Comparison(results=ROWS), "sums").axes[0]
    assert axes.get_title() == "sums, 2000 test prompts"
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines) == ["sequential", "learned", "shuffled", "practical-ceiling"]
    assert list(lines["learned"].get_xdata()) == [3.0, 5.0]
    assert [line.get_linestyle() for line in lines.values()] == ["-", "-", "--", "--"]


def test_the_legend_is_off_the_data() -> None:
    pytest.importorskip("matplotlib")
    canvas = picture(Comparison(results=ROWS), "sums")
    canvas.draw_without_rendering()
    legend, axes = canvas.legends[0].get_window_extent(), canvas.axes[0].get_window_extent()
    assert legend.x0 > axes.x1
    assert legend.x1 <= canvas.bbox.x1


def test_a_comparison_without_curves_has_no_picture(tmp_path) -> None:
    assert plot(Comparison(results=ROWS), tmp_path) == []


def test_a_task_with_a_parity_study_alone_is_named_without_prompts() -> None:
    study = {"task": "sums", "operating_point": None, "points": []}
    assert table(Comparison(parity=[study])).startswith("## sums\n")


def test_a_terminal_gets_aligned_columns_that_fit() -> None:
    head = ["arm", "dial", "accuracy %", "rounds"]
    assert aligned([head, ["a", "0.9", "97.0 [96.0, 98.0]", "3.1"], ["learned", "", "9.0 [8.0, 10.0]", "12.5"]]) == [
        "arm      dial         accuracy %  rounds",
        "a         0.9  97.0 [96.0, 98.0]     3.1",
        "learned          9.0 [8.0, 10.0]    12.5",
    ]
    wide = aligned([["arm", "b" * 60, "c" * 60], ["x" * 20, "1", "2"]])
    assert [len(line) for line in wide] == [82, 82]
    assert all(len(line) <= NARROW for line in aligned([["y" * 120, "1"]]))
