"""Answers that several processes of a run share out: written aside by each, merged in the order of the prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.complaints import shown
from models.ranks import Ranks
from train.commands.answering.batches import decode_order

Line = dict[str, Any]


def part_of(out: Path, rank: int) -> Path:
    """The file of one process beside `out`: a line is [number of the row, what is written of it]."""
    return out.with_name(f"{out.name}.rank-{rank}")


def read_parts(out: Path) -> dict[int, Line]:
    """What processes that were cut off have left beside `out`, by row; a line that was cut off is none.

    Raises:
        ValueError: for a file that holds anything else.
    """
    found: dict[int, Line] = {}
    for file in sorted(out.parent.glob(f"{out.name}.rank-*")):
        for text in file.read_text(encoding="utf-8").splitlines(keepends=True):
            if not text.endswith("\n"):
                continue
            try:
                row, line = json.loads(text)
                found[int(row)] = {**line}
            except (ValueError, TypeError) as error:
                raise ValueError(f"{file} must be of this command, got a line {shown(text)}") from error
    return found


def rows_of_others(lengths: Sequence[int], batch_size: int, done: set[int], ranks: Ranks) -> set[int]:
    """Rows that other processes answer: every one takes batches of like length in turn.

    Args:
        lengths: of all prompts in tokens.
        batch_size: rows of a batch.
        done: rows whose answers are known.
        ranks: this process among the others.
    """
    order = [row for row in decode_order(lengths, batch_size) if row not in done]
    left = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
    mine = {row for rows in ranks.mine(left) for row in rows}
    return {row for rows in left for row in rows} - mine


def merge_parts(out: Path, answers: Mapping[int, Line], first: int) -> None:
    """Add the answers from row `first` on to the file, in order, and take away what was written aside."""
    with out.open("a", encoding="utf-8") as stream:
        for row in sorted(row for row in answers if row >= first):
            stream.write(json.dumps(answers[row], ensure_ascii=False) + "\n")
    for file in out.parent.glob(f"{out.name}.rank-*"):
        file.unlink()
