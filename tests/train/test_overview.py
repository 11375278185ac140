"""The picture of the README: which curves it shows, and what it says where a result is missing."""

import gzip
import json

import pytest

from train.commands.command_line import run
from train.overview import STYLES, curve, draw, overview


def row(arm: str, rounds: float, accuracy: float, split: str = "test") -> dict:
    return {"arm": arm, "split": split, "rounds": {"estimate": rounds}, "accuracy": {"estimate": accuracy}}


ROWS = [
    row("sequential", 24.0, 0.9),
    row("learned", 4.0, 0.88),
    row("learned", 2.0, 0.8),
    row("learned", 9.0, 0.1, "dev"),
]


def test_a_curve_goes_from_few_rounds_to_many():
    assert curve(ROWS[:3], "learned") == [(2, 0.8), (4, 0.88)]
    assert curve(ROWS, "ete") == []


def test_every_arm_that_ran_on_test_prompts_is_drawn_once_and_the_reference_is_a_line():
    (legend,) = (figure := draw({"countdown3": {"results": ROWS}})).legends
    assert [text.get_text() for text in legend.get_texts()] == ["learned", "one token a round (reference)"]
    (axes,) = figure.axes
    assert axes.get_title() == "countdown3, reference 24 rounds"
    assert next(line.get_xdata() for line in axes.get_lines()) == pytest.approx([2, 4])


def test_a_task_without_a_result_is_refused_in_a_sentence(tmp_path, capsys):
    (tmp_path / "sudoku.json.gz").write_bytes(gzip.compress(json.dumps({"results": ROWS}).encode()))
    arguments = ["--results", str(tmp_path), "--picture", str(tmp_path / "all.png"), "--tasks", "sudoku,lists"]
    with pytest.raises(SystemExit) as ended:
        run(overview, arguments)
    assert ended.value.code == 2
    assert "results must be a folder with lists.json.gz" in capsys.readouterr().err
    assert not (tmp_path / "all.png").exists()


def test_no_two_arms_look_alike():
    assert len({(style["color"], style["marker"]) for style in STYLES.values()}) == len(STYLES)
