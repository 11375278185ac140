"""What the benchmarks share: how a record becomes an example, and where a model's answer ends."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from models.complaints import shown
from train.tasks.hub import Hub
from train.tasks.question import is_there, require_string
from train.tasks.task import Example, Row, Task

GEN_LENGTH, BLOCK_LENGTH = 256, 32  # what the field reports LLaDA and Dream with
SPLIT_CLASSES = 8  # few examples: an eighth of a file is dev and an eighth test where a head is fitted on it
ENDS = ("<|eot_id|>", "<|im_end|>", "<|endoftext|>", "<|end|>", "</s>", "<|start_header_id|>", "<|im_start|>")


def benchmark(
    name: str,
    row: Callable[[Row], Example],
    check: Callable[[Example, str], bool],
    *,
    ask: Callable[[str], str],
    hub: Hub | None,
    runs_code: bool = False,
) -> Task:
    """A task whose examples come from a file or from the hub.

    Args:
        name: what users type.
        row: reads a record of the official file or of the dataset on the hub.
        check: whether a text answers an example; asked only where `Example.answer` is known.
        ask: the user message for a bare question.
        hub: the dataset.
        runs_code: the checker runs what the model wrote.
    """
    return Task(
        name=name,
        prompt_length=0,
        gen_length=GEN_LENGTH,
        block_length=BLOCK_LENGTH,
        unique_answer=False,
        make=None,
        canonical=canonical,
        check=check,
        row=row,
        ask=ask,
        hub=hub,
        needs_answer=True,
        runs_code=runs_code,
        split_classes=SPLIT_CLASSES,
    )


def canonical(prompt: str) -> str:
    """Name the instance by its prompt, whatever its white space.

    Raises:
        ValueError: for a blank prompt.
    """
    if not prompt.strip():
        raise ValueError(f"prompt must hold text, got {shown(prompt)}")
    return " ".join(prompt.split())


def field(row: Row, *names: str) -> str:
    """The text of the first of these fields that holds any.

    Raises:
        ValueError: if none does, or it holds something else.
    """
    name = next((name for name in names if is_there(row, name)), next((name for name in names if name in row), None))
    if name is None:
        raise ValueError(f"row must have {' or '.join(names)}, got {', '.join(map(str, row)) or 'an empty one'}")
    return require_string(row, name)


def optional(row: Row, *names: str) -> str:
    """The first of these fields that is there, as text; "" where there is none. Whole numbers are spelt out.

    Raises:
        ValueError: if it is neither text nor a number.
    """
    value = next((row[name] for name in names if row.get(name) is not None), "")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{' or '.join(names)} must be text or a number, got {shown(value)}")
    return str(value)


def texts(row: Row, name: str) -> list[str]:
    """A field that holds a list of texts; empty where it is missing.

    Raises:
        ValueError: if it holds anything else.
    """
    value: Any = row.get(name) or []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{name} must be a list of texts, got {shown(value)}")
    return value


def squeezed(text: str) -> str:
    """The text with no more than three blanks and one empty line in a row, so that no pattern runs long on them."""
    return re.sub(r"(?:[^\S\n]*\n){3,}", "\n\n", re.sub(r"[^\S\n]{4,}", "   ", text))


def until(text: str, *marks: str) -> str:
    """The text before the first of these marks and before any end of a turn."""
    for mark in (*ENDS, *marks):
        text = text.partition(mark)[0]
    return text
