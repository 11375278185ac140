"""What is tracked of results stays small, and texts, rounds and pages stay out."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
LARGEST = 200_000  # bytes


def test_no_tracked_result_is_large():
    assert [file for file in RESULTS.rglob("*") if file.is_file() and file.stat().st_size > LARGEST] == []


@pytest.mark.parametrize("name", ["texts.jsonl.gz", "traces.jsonl.gz", "texts.jsonl", "report.html"])
def test_texts_rounds_and_pages_are_ignored(name):
    if not (ROOT / ".git").exists():
        pytest.skip("a copy without its history")
    file = f"docs/results/2026-01-01-any/{name}"
    assert subprocess.run(["git", "check-ignore", "-q", file], cwd=ROOT, check=False).returncode == 0
