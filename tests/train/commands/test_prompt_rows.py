"""Rows of a prompts file without a task: the question is asked whole, or the row is refused."""

from __future__ import annotations

import json
import os

import pytest

from train.commands.answering.prompt_file import read_prompts
from train.tasks import text_files

USER = {"role": "user", "content": "Hi"}


def read(tmp_path, row):
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps(row))
    return [asked.prompt for asked in read_prompts(str(file), None)]


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({"instruction": "Translate", "input": "Good morning", "output": "x"}, "Translate\nGood morning"),
        ({"instruction": "Translate", "input": ""}, "Translate"),
        ({"context": "C", "question": "Q"}, "C\n\nQ"),
        ({"question": "Q", "choices": ["a", "b"]}, "Q\nA. a\nB. b"),
        ({"prompt": "P", "text": "an answer"}, "P"),
        ({"prompt": None, "question": "Q"}, "Q"),
    ],
)
def test_what_belongs_to_a_question_is_asked(tmp_path, row, asked):
    assert read(tmp_path, row) == [asked]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"system": "Be brief", "prompt": "Hi"}, "system must be part"),
        ({"system": "Be brief", "messages": [USER]}, "system must be part"),
        ({"question": "Q", "image": "a.png"}, "image must be part"),
        ({"history": [["a", "b"]], "prompt": "Hi"}, "history must be part"),
        ({"prompt": "Translate", "input": "Good morning"}, "row must have one question, got prompt and input"),
        ({"prompt": "Hi", "question": "Q"}, "row must have one question, got prompt and question"),
        ({"Instruction": "Translate", "input": "Good morning"}, "instruction must be spelled so, got Instruction"),
        ({"question": "Q", "contexts": ["C"]}, "contexts must be part"),
        ({"question_stem": "Q", "prompt": "Q", "fact1": "F"}, "fact1 must be part"),
        ({"prompt": "P", "tools": [{"name": "x"}]}, "tools must be part"),
        ({"question": "Q", "distractor1": "x", "distractor2": "y"}, "options must be one list"),
        ({"question": "Q", "Incorrect Answer 1": "x", "Incorrect Answer 2": "y"}, "options must be one list"),
        ({"question": "Q", "mc1_targets": {"choices": []}, "mc2_targets": {"choices": []}}, "options must be one list"),
        ({"question": "Q", "option_a": "x", "option_b": "y"}, "options must be one list"),
        ({"messages": [USER, {"role": "assistant", "content": "x"}]}, "messages must end before the answer"),
    ],
)
def test_what_cannot_be_joined_is_refused(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, row)


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "LONGEST_LINE", 8)
    (tmp_path / "p.txt").write_text("a" * 9)
    with pytest.raises(ValueError, match="line 1: a line must have fewer than 8 characters, got more"):
        list(read_prompts(str(tmp_path / "p.txt"), None))


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "p.jsonl")
    with pytest.raises(ValueError, match="must be a file that is there, got a pipe: - reads standard input"):
        list(read_prompts(str(tmp_path / "p.jsonl"), None))


def test_what_is_no_file_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"none\.txt must be a file that is there, got none$"):
        list(read_prompts(str(tmp_path / "none.txt"), None))
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(ValueError, match=r"folder\.txt must be a file that is there, got a folder$"):
        list(read_prompts(str(tmp_path / "folder.txt"), None))


def test_a_file_of_zeros_is_refused(tmp_path):
    (tmp_path / "p.txt").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="text must be in UTF-8"):
        list(read_prompts(str(tmp_path / "p.txt"), None))
