"""JSON of others: an object, or one sentence; lines that were cut off, numbers that are none, nesting without end."""

from __future__ import annotations

import json
import os
import re

import pytest

from models.checkpoints.json_files import cut_to_lines, parse, read_lines, read_object

BROKEN = [
    ("[1]", "must hold a JSON object, got list"),
    ("", "must be JSON, got Expecting value"),
    ('{"a": 1e999}', "must be JSON, got numbers must be finite, got 1e999"),
    ('{"a": -1e999}', "must be JSON, got numbers must be finite, got -1e999"),
    ('{"a": NaN}', "must be JSON, got numbers must be finite, got NaN"),
    ('{"a": Infinity}', "must be JSON, got numbers must be finite, got Infinity"),
    ('{"a": 1, "a": 2}', "must be JSON, got a must be there once in a row, got it twice"),
    ('{"b": {"a": 1, "a": 2}}', "must be JSON, got a must be there once in a row, got it twice"),
    ('{"a":' * 20_000, "must be JSON, got it must be nested less deeply"),
    ("[" * 100_000, "must be JSON, got it must be nested less deeply"),
    ("1" * 5000, "must be JSON, got Exceeds the limit"),
]


@pytest.mark.parametrize(("text", "sentence"), BROKEN, ids=range(len(BROKEN)))
def test_what_is_no_object_is_refused_by_its_file(tmp_path, text, sentence):
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"^{re.escape(str(file))} {re.escape(sentence)}"):
        read_object(file)
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n' + text + "\n")
    with pytest.raises(ValueError, match=rf"a\.jsonl, line 2 {re.escape(sentence)}"):
        read_lines(tmp_path / "a.jsonl")


def test_other_bytes_a_folder_and_a_pipe_are_refused(tmp_path):
    (tmp_path / "latin").write_bytes('{"a": "é"}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin must be JSON, got 'utf-8' codec"):
        read_object(tmp_path / "latin")
    os.mkfifo(tmp_path / "pipe")
    for name in (".", "pipe"):
        with pytest.raises(ValueError, match=r"must be a regular file, got a folder, a pipe or a device"):
            read_object(tmp_path / name)
        with pytest.raises(ValueError, match=r"must be a regular file, got a folder, a pipe or a device"):
            read_lines(tmp_path / name)
    with pytest.raises(ValueError, match=r"none\.json must be JSON, got .*No such file"):
        read_object(tmp_path / "none.json")
    assert read_lines(tmp_path / "none.json") == []


def test_numbers_that_are_none_pass_where_they_may(tmp_path):
    (tmp_path / "a.json").write_text('{"a": -Infinity, "b": 1e999}')
    assert read_object(tmp_path / "a.json", finite=False) == {"a": float("-inf"), "b": float("inf")}
    assert parse("1e3") == 1000.0


def test_a_line_that_was_cut_off_is_none_and_goes(tmp_path):
    file = tmp_path / "a.jsonl"
    whole = "".join(json.dumps({"n": n}) + "\n" for n in range(3))
    for rest in ("", "{", '{"n": 3}'):
        file.write_text(whole + rest)
        assert [row["n"] for row in read_lines(file)] == [0, 1, 2]
        cut_to_lines(file)
        assert file.read_text() == whole
    file.write_text('{"n": 3}')
    cut_to_lines(file)
    assert file.read_text() == ""
    cut_to_lines(tmp_path / "none")
