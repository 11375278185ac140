"""A results folder as the report reads it: figures, texts and traces, judged by the schemas that ship with them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from decoding.comparison.records.format import TEXTS, TRACES, read_rows

Row = dict[str, Any]
FIGURES = "comparison.json"
SCHEMAS = Path(__file__).resolve().parents[2] / "decoding" / "comparison" / "records"


@dataclass(frozen=True)
class Results:
    """What a results folder holds.

    Attributes:
        figures: the object of comparison.json.
        texts: rows of texts.jsonl.gz, of the test split.
        traces: rows of traces.jsonl.gz, of the test split.
    """

    figures: Mapping[str, Any]
    texts: tuple[Row, ...] = ()
    traces: tuple[Row, ...] = ()

    def of_task(self, table: str, task: str) -> list[Row]:
        """The rows of a table of comparison.json that are about one task."""
        return [row for row in self.figures.get(table) or () if row["task"] == task]

    @property
    def tasks(self) -> list[str]:
        """Every task, in the order of the comparison."""
        rows = [*(self.figures.get("results") or ()), *(self.figures.get("parity") or ()), *self.texts]
        return list(dict.fromkeys(row["task"] for row in rows))


def read_results(folder: str | Path) -> Results:
    """Read a folder that `compare.py` or another tool has written.

    Args:
        folder: with comparison.json, and texts.jsonl.gz and traces.jsonl.gz where there are any; each packed by gzip or not.

    Raises:
        ValueError: naming the file, and the line of a row that is not as its schema says.
    """
    folder = Path(folder)
    file = first_of(folder, FIGURES, f"{FIGURES}.gz")
    if file is None:
        raise ValueError(f"folder must hold {FIGURES}, got {folder}")
    texts, traces = (_checked_rows(folder, name) for name in (TEXTS, TRACES))
    return Results(read_figures(file), tuple(texts), tuple(traces))


def read_figures(file: Path) -> Row:
    """The object in comparison.json.

    Raises:
        ValueError: naming the file.
    """
    try:
        data = file.read_bytes()
        found = json.loads(gzip.decompress(data) if file.suffix == ".gz" else data)
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{file} must be readable JSON, got {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("results"), list):
        raise ValueError(f"{file} must be a comparison with a list of results, got none")
    return found


def first_of(folder: Path, *names: str) -> Path | None:
    """The first of these files that is there."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _checked_rows(folder: Path, name: str) -> list[Row]:
    file = first_of(folder, name, name.removesuffix(".gz"))
    if file is None:
        return []
    rows = list(read_rows(file))
    check_rows(rows, name.partition(".")[0], str(file))
    return [row for row in rows if row.get("split", "test") == "test"]


def check_rows(rows: Iterable[Row], kind: str, where: str) -> None:
    """Refuse rows that are not as their schema says.

    Args:
        rows: from a file, line by line.
        kind: texts or traces.
        where: what the complaint calls the file.

    Raises:
        ValueError: naming the line and what is wrong there.
    """
    from jsonschema.exceptions import best_match

    validator = schema_of(kind)
    for number, row in enumerate(rows, 1):
        if (error := best_match(validator.iter_errors(row))) is not None:
            place = "/".join(map(str, error.absolute_path)) or "the line"
            raise ValueError(f"{where}, line {number} must follow {kind}.schema.json, got at {place}: {error.message}")


@cache
def schema_of(kind: str) -> Any:
    """The validator of texts or traces."""
    from jsonschema import Draft202012Validator

    return Draft202012Validator(json.loads((SCHEMAS / f"{kind}.schema.json").read_text(encoding="utf-8")))
