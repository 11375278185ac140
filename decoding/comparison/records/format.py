"""The files of a comparison's texts and traces: their names, their version, and how they are read and written."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from decoding.files.aside import written_aside
from models.checkpoints.json_files import parse
from models.complaints import shown

Row = dict[str, Any]
Key = tuple[str, str, int]  # task, cell and number of the prompt

VERSION = 1
TEXTS, TRACES = "texts.jsonl.gz", "traces.jsonl.gz"
REPLAYS, MOST_REPLAYS = 32, 100  # where none are asked for, and at most


def check_replays(replays: int) -> None:
    """Refuse a number of replays that is out of range.

    Raises:
        ValueError: in one sentence.
    """
    if not 0 <= replays <= MOST_REPLAYS:
        raise ValueError(f"replays must lie in [0, {MOST_REPLAYS}], got {replays}")


def keyed(rows: Iterable[Row]) -> dict[Key, Row]:
    """Rows by task, cell and prompt; those of other tools, which name no cell, are left out."""
    return {(row["task"], row["cell"], row["prompt_id"]): row for row in rows if row.get("cell") is not None}


def read_rows(file: Path) -> Iterator[Row]:
    """The rows of a `.jsonl.gz` or `.jsonl` file, none where there is no file.

    Raises:
        ValueError: naming file and line.
    """
    if not file.is_file():
        return
    packed = file.suffix == ".gz"
    try:
        with gzip.open(file, "rt", encoding="utf-8") if packed else file.open(encoding="utf-8") as lines:
            yield from (_row(file, number, line) for number, line in enumerate(lines, 1))
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise ValueError(f"{file} must be readable lines in UTF-8, got {error}") from error


def _row(file: Path, number: int, line: str) -> Row:
    try:
        row = parse(line)
    except ValueError as error:
        raise ValueError(f"{file}, line {number} must be JSON, got {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"{file}, line {number} must be a JSON object, got {shown(line)}")
    return row


def write_rows(file: Path, rows: Iterable[Row]) -> None:
    """Write rows as packed JSON lines, aside and renamed; the same rows give the same bytes."""
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    with written_aside(file) as aside:
        aside.write_bytes(gzip.compress(text.encode(), mtime=0))
