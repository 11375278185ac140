"""The lines that `generate` writes in bulk, one an answer: as they are made, read back and held against a call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.checkpoints.json_files import cut_to_lines, read_lines
from models.complaints import first_difference, shown
from train.commands.answering.batches import Answer
from train.commands.answering.call import GenerateCall, counts_of
from train.commands.answering.prompt_file import Asked

COUNTED = ("rounds", "sequence_forwards", "tokens", "seconds")


def line_of(
    answer: Answer, asked: Asked, sample: int, call: GenerateCall, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """One answer as it is written.

    Args:
        answer: what was decoded.
        asked: its prompt.
        sample: its number among the answers to that prompt.
        call: whose task checks it.
        settings: all that the answer depends on.
    """
    row, task = answer.row, call.task
    judged = task is not None and task.judges(asked.example)
    return {
        "id": asked.id,
        "sample": sample,
        "prompt": asked.prompt,
        "text": row.text,
        **({"accepted": task.check(asked.example, str(row.text))} if task is not None and judged else {}),
        **counts_of(row),
        "tokens": row.new_tokens,
        "seconds": round(answer.seconds, 5),
        "seed": answer.seed,
        "settings": settings,
    }


def lines_of(out: Path) -> list[dict[str, Any]]:
    """The lines that an earlier run has written; a last one that was cut off is taken away.

    Raises:
        ValueError: for a file that holds anything else.
    """
    try:
        lines = read_lines(out)
        for number, line in enumerate(lines, 1):
            require_counted(line, number)
    except ValueError as error:
        raise ValueError(f"out must be a file of this command, or none, got other lines ({error})") from error
    cut_to_lines(out)
    return lines


def require_counted(line: Mapping[str, Any], number: int) -> None:
    """Refuse a line without the settings and the counts of an answer.

    Raises:
        ValueError: naming the line.
    """
    wrong = [name for name in COUNTED if not _is_count(line.get(name))]
    if wrong or not isinstance(line.get("settings"), dict) or not isinstance(line.get("accepted", False), bool):
        raise ValueError(f"line {number} must have settings, counts and a verdict, got {', '.join(wrong) or 'others'}")
    size = line["settings"].get("batch_size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"batch_size of line {number} must be a whole number of at least 1, got {shown(size)}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def check_line(line: Mapping[str, Any], asked: Asked, sample: int, settings: Mapping[str, Any], out: str) -> None:
    """Refuse a line that answers another prompt, or that other settings gave.

    Args:
        line: of an earlier run.
        asked: the prompt that stands in its place now.
        sample: the number of the answer to that prompt.
        settings: of this run.
        out: the file, for the complaint.

    Raises:
        ValueError: naming what differs.
    """
    now = json.loads(json.dumps({"id": asked.id, "sample": sample, "prompt": asked.prompt, **settings}))
    then = {**{name: line.get(name) for name in ("id", "sample", "prompt")}, **line["settings"]}
    if "weights" not in then:
        raise ValueError(f"out must be a file that says which weights gave its lines, got one without: {out}")
    name = first_difference(now, then)
    if name is not None:
        raise ValueError(
            f"{name} must be that of the lines in {out} ({shown(then.get(name))}), got {shown(now.get(name))}"
        )
