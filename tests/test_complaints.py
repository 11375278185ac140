"""Complaints show what they got on one line, and cut what is long: over the whole code, and in calls with long values."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

import generate as generate_command
from models.complaints import LONGEST, cut, listed, shown
from tests.complaint import complaint

ROOT = Path(__file__).parents[1]
CODE = [file for folder in ("decoding", "models", "train") for file in sorted((ROOT / folder).rglob("*.py"))]


def test_a_long_value_is_cut_in_its_middle():
    assert shown("a" * 5000) == "'" + "a" * 79 + " ... " + "a" * 34 + "'"
    assert shown(list(range(9999))).endswith(" 9998]")
    assert all(len(shown(value)) <= LONGEST for value in ("a" * 5000, {"b": "c" * 300}, 10**4000, b"x" * 1000))
    assert cut("a" * 120) == "a" * 120
    assert cut("abcdefghijklmnopqrstuvwxyz", 20) == "abcdefghijklm ... yz"
    assert len(cut("a" * 5000, 1000)) == 1000


def test_what_is_shown_stands_on_one_line():
    assert "\n" not in shown(torch.zeros(3, 3))
    assert shown("a\nb") == r"'a\nb'"
    assert listed(["a", "b\nc", 3]) == "a, b c, 3"


def test_a_number_too_long_to_be_written_is_named():
    assert shown(10**5000) == "int with too many digits"


def test_every_complaint_of_the_code_cuts_the_values_that_it_writes_as_python_does():
    raw = []
    for file in CODE:
        for raised in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(raised, ast.Raise) or "AttributeError" in ast.unparse(raised):
                continue
            uncut = [
                one for one in ast.walk(raised) if isinstance(one, ast.FormattedValue) and one.conversion == ord("r")
            ]
            raw += [f"{file.relative_to(ROOT)}:{one.lineno}" for one in uncut]
    assert raw == []


@pytest.mark.parametrize("option", ["policy", "model", "head", "task", "prompts", "out", "device", "adapter", "nosuch"])
def test_a_command_shows_a_long_value_in_part(capsys, option):
    given = {"prompt": "1,2,3,6", option: "1" * 5000}
    if option == "prompts":
        del given["prompt"]
    said = complaint(capsys, generate_command.generate, *(f"--{name}={value}" for name, value in given.items()))
    assert 20 < len(said) < 1100
