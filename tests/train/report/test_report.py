"""The report of a results folder: what it reads and refuses, what it says, and what one file may weigh."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jinja2", reason="the extra `report` is not installed")
pytest.importorskip("jsonschema", reason="the extra `report` is not installed")
pytest.importorskip("vl_convert", reason="the extra `report` is not installed")

from decoding.comparison.records.format import TEXTS, TRACES, read_rows, write_rows
from train.report import page
from train.report.charts import charts
from train.report.folder import read_results, schema_of
from train.report.page import LARGEST, rows_on_test, write_report
from train.report.payload import pack
from train.report.view import view_task

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def folder(make_folder, tmp_path_factory) -> Path:
    return make_folder(tmp_path_factory.mktemp("results"))


@pytest.mark.parametrize("kind", ["texts", "traces"])
def test_the_schemas_are_schemas_and_hold_for_a_folder(folder, kind):
    schema_of(kind).check_schema(schema_of(kind).schema)
    rows = list(read_rows(folder / f"{kind}.jsonl.gz"))
    assert rows
    assert all(schema_of(kind).is_valid(row) for row in rows)


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        (TEXTS, {"rounds": "3"}, "line 2 must follow texts.schema.json, got at rounds: '3' is not of type 'integer'"),
        (TEXTS, {"version": 2}, "line 2 must follow texts.schema.json, got at version: 1 was expected"),
        (TRACES, {"gen_length": 0}, "line 2 must follow traces.schema.json, got at gen_length: 0 is less than"),
        (TRACES, {"rounds": [{"commits": [{"token": "a"}]}]}, "got at rounds/0/commits/0: 'position' is a required"),
    ],
)
def test_a_row_of_another_form_is_named_with_its_line(make_folder, tmp_path, name, change, sentence):
    folder = make_folder(tmp_path, prompts=2, arms=2)
    rows = list(read_rows(folder / name))
    write_rows(folder / name, [rows[0], {**rows[1], **change}])
    with pytest.raises(ValueError, match=name) as found:
        read_results(folder)
    assert sentence in str(found.value)


def test_what_is_no_line_of_json_is_named(make_folder, tmp_path):
    folder = make_folder(tmp_path, prompts=2, arms=2)
    (folder / TEXTS).write_bytes(gzip.compress(b"{}\n{half"))
    with pytest.raises(ValueError, match=r"texts.jsonl.gz, line 2 must be JSON"):
        list(read_rows(folder / TEXTS))
    (folder / TEXTS).write_bytes(b"\x1f\x8bno gzip")
    with pytest.raises(ValueError, match=r"texts.jsonl.gz must be readable lines in UTF-8"):
        list(read_rows(folder / TEXTS))
    with pytest.raises(ValueError, match=r"^folder must hold comparison.json, got "):
        read_results(tmp_path / "nothing")


def test_rows_come_back_as_they_were_and_equal_rows_give_equal_bytes(tmp_path):
    rows = [{"text": "a\nb ⏎ 数", "n": 0.1}, {"text": ""}]
    for name in ("one.jsonl.gz", "two.jsonl.gz"):
        write_rows(tmp_path / name, rows)
    assert list(read_rows(tmp_path / "one.jsonl.gz")) == rows
    assert (tmp_path / "one.jsonl.gz").read_bytes() == (tmp_path / "two.jsonl.gz").read_bytes()
    (tmp_path / "plain.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert list(read_rows(tmp_path / "plain.jsonl")) == rows
    assert list(read_rows(tmp_path / "absent.jsonl")) == []


def test_the_verdict_names_the_fewest_rounds_among_those_that_hold(make_folder, tmp_path):
    folder = make_folder(tmp_path, prompts=600, arms=3)
    figures = json.loads((folder / "comparison.json").read_text())
    results = read_results(folder)
    assert view_task(results, "sums 0").verdict == (
        "On sums 0 threshold at 0.95 keeps the accuracy of sequential within one point in 4.0 rounds [3.8, 4.2] where "
        "sequential takes 24.0, 6.0 times as many (600 test prompts)."
    )
    next(row for row in figures["curves"] if row["arm"] == "threshold")["holds"] = False
    (folder / "comparison.json").write_text(json.dumps(figures))
    assert "On sums 0 ete at 0.95 keeps" in view_task(read_results(folder), "sums 0").verdict
    figures["verdicts"].append({"task": "sums 0", "arm": None, "finding": "no checker", "sentence": "none."})
    figures["curves"] = figures["curves"][:1]
    (folder / "comparison.json").write_text(json.dumps(figures))
    task = view_task(read_results(folder), "sums 0")
    assert task.verdict == "On sums 0 no arm keeps the texts of sequential within one point (600 test prompts)."
    assert task.measure == "agreement with sequential"


def test_a_task_without_curves_still_has_its_table(folder):
    results = read_results(folder)
    bare = type(results)({"results": results.figures["results"]})
    task = view_task(bare, "sums 0")
    assert len(task.arms) == 1 + 7 * 3
    assert charts(task, rows_on_test(bare, "sums 0")).keys() == {"curves"}
    assert "no curves were drawn" in task.verdict
    assert "no texts are shown" in page.render(bare)


def test_the_page_stays_under_its_limit_and_says_what_it_left_out(make_folder, tmp_path, monkeypatch):
    folder = make_folder(tmp_path, prompts=64, replays=32)
    results = read_results(folder)
    whole = pack(results, LARGEST)
    assert (whole.texts, whole.replays, whole.cut) == (64, 32, False)
    some = pack(results, len(whole.packed) // 3)
    assert len(some.packed) <= len(whole.packed) // 3
    assert 0 < some.replays < 32
    assert some.cut
    file = write_report(folder)
    assert "So that the file stays small" not in file.read_text()
    limit = file.stat().st_size + page.MARGIN - len(whole.packed) // 2
    monkeypatch.setattr(page, "LARGEST", limit)
    assert write_report(folder).stat().st_size <= limit
    assert "So that the file stays small, at most 64 prompts" in file.read_text()


def test_prompts_cannot_break_out_of_the_page(make_folder, tmp_path):
    folder = make_folder(tmp_path, prompts=2, arms=2)
    figures = json.loads((folder / "comparison.json").read_text())
    figures["environment"]["command"] = "</script><script>alert(1)</script>"
    for row in figures["verdicts"]:
        row["sentence"] = "<img src=x onerror=alert(1)>"
    (folder / "comparison.json").write_text(json.dumps(figures))
    text = write_report(folder).read_text()
    assert "<script>alert" not in text
    assert "<img" not in text.replace(page.render.__doc__ or "", "").partition("<script")[0]


def test_the_command_writes_the_page_of_a_finished_folder(make_folder, tmp_path):
    folder = make_folder(tmp_path / "results", prompts=3, arms=2)
    command = [sys.executable, "-m", "train.report"]
    done = subprocess.run([*command, str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, f"written to {folder / 'report.html'}\n"), done.stderr
    done = subprocess.run([*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == f"report.py: folder must hold comparison.json, got {tmp_path}\n"
