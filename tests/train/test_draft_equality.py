"""Texts of checked drafts held against those of each rule: what is decoded, counted and refused."""

from __future__ import annotations

import json

import pytest

import train.draft_equality as equality
from decoding.comparison.arms import Arm
from train.draft_equality import Model, Piece, arms_of, draft_equality, pieces_of, run_piece, summed, table

THRESHOLD = Arm("threshold", "headless", "threshold", dial="threshold", values=(0.96,))
HOW = Model("checkpoints/reason-7m", "checkpoints/reason-7m-head", "float64", "cpu", 4, 1)


@pytest.fixture
def unloaded(monkeypatch):
    monkeypatch.setattr(equality, "_loaded", [])


def test_a_rule_and_its_checked_drafts_write_the_same_text(tmp_path, unloaded):
    (piece,) = pieces_of("countdown3", [THRESHOLD], 2, seed=0)
    assert (piece.rule, piece.settings, len(piece.prompts)) == ("threshold", {"threshold": 0.96}, 2)
    file = tmp_path / "one.json"
    run_piece(Piece(**{**vars(piece), "block_length": 24}), HOW, file, float("inf"))
    found = json.loads(file.read_text())
    assert (found["prompts"], found["equal"]) == (2, 2)
    assert found["checked"]["rounds"] < found["alone"]["rounds"] < found["checked"]["sequence_forwards"]
    assert found["alone"]["drafts"] == 0 < found["checked"]["drafts_true"]


def test_a_text_that_differs_is_counted_as_such(tmp_path, unloaded, monkeypatch):
    def other(denoiser, piece, policy, settings):
        return dict.fromkeys(equality.COUNTS, 1), [[int(policy == "verified")], [2]]

    monkeypatch.setattr(equality, "decoded", other)
    monkeypatch.setattr(equality, "load", lambda how: None)
    run_piece(Piece("countdown3", "margin", {}, 0, ("1", "2"), 24, "none"), HOW, tmp_path / "p.json", float("inf"))
    assert json.loads((tmp_path / "p.json").read_text())["equal"] == 1


def test_no_piece_is_begun_when_the_time_is_over(tmp_path):
    run_piece(Piece("countdown3", "margin", {}, 0, ("1",), 24, "none"), HOW, tmp_path / "p.json", 0.0)
    assert not (tmp_path / "p.json").exists()


def test_pieces_of_a_rule_become_one_row_of_means():
    counts = {"rounds": 6, "sequence_forwards": 12, "drafts": 4, "drafts_true": 2}
    one = {"task": "lists", "rule": "factor", "settings": {}, "alone": counts, "checked": counts}
    (row,) = summed([one | {"prompts": 2, "equal": 2}, one | {"prompts": 1, "equal": 0}])
    assert (row["prompts"], row["equal"], row["checked"]["rounds"]) == (3, 2, 4.0)
    assert "2 of 3 texts equal, 4.00 rounds alone" in table([row])


def test_what_cannot_be_run_is_refused():
    with pytest.raises(ValueError, match="rules must be arms of the catalogue"):
        arms_of([THRESHOLD], "threshold,other")
    with pytest.raises(ValueError, match="slice_size must be at least 1, got 0"):
        draft_equality(catalogue=[THRESHOLD], slice_size=0)
