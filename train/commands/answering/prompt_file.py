"""Prompts in bulk: from options, a file or standard input, each with the id that its answer carries."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.complaints import shown
from train.tasks import Example, Task
from train.tasks.hub import HUB
from train.tasks.question import INSTRUCTION, is_there, question, refuse_parts
from train.tasks.text_files import decoded, lines_of, parse_json, placed, require_text

STDIN = "-"
SUFFIXES = (".jsonl", ".jsonl.gz", ".txt", ".txt.gz")
IDS = ("id", "task_id", "question_id")
FIELDS = ("prompt", "input", "question", "text", "quiz")
MESSAGES = "messages"

Prompt = str | tuple[Mapping[str, str], ...]


@dataclass(frozen=True)
class Asked:
    """A prompt to be decoded.

    Attributes:
        id: the record's own, else its number in the file, counted from 1.
        prompt: a text, or the messages of a chat.
        example: the same with what the task's checker compares with.
    """

    id: str | int
    prompt: Prompt
    example: Example


def typed(prompts: Sequence[str], task: Task | None) -> tuple[Asked, ...]:
    """Prompts of the command line, put as the task asks them."""
    return tuple(Asked(number, *_bare(prompt, task)) for number, prompt in enumerate(prompts, 1))


def read_prompts(source: str, task: Task | None) -> Iterator[Asked]:
    """The prompts of a file, of `-` (standard input), or of a benchmark on the hub.

    A line of JSON has a field prompt, input, question, text, quiz or messages, or the benchmark's own ones; `id`, `task_id` or
    `question_id` is kept. Any other line is a prompt, with a task's answer after `||` where there is one.

    Args:
        source: `.jsonl` or `.txt`, packed if the name ends in `.gz`; `-`; or `hub`, with a task.
        task: whose prompts these are, or None for prompts of one's own.

    Raises:
        ValueError: naming file and line.
    """
    if source == HUB:
        if task is None:
            raise ValueError("prompts must come with a task, got hub alone")
        yield from (Asked(number, one.prompt, one) for number, one in enumerate(task.read(HUB), 1))
        return
    name = "standard input" if source == STDIN else source
    if source != STDIN and not source.endswith(SUFFIXES):
        raise ValueError(f"prompts must be a file that ends in {', '.join(SUFFIXES)}, - or hub, got {source}")
    lines: Iterable[str] = _typed_in() if source == STDIN else lines_of(Path(source))
    as_json = ".jsonl" in Path(source).name
    for number, line in enumerate(lines, 1):
        text = line.rstrip("\r\n")
        if not text.strip():
            continue
        try:
            found = _record(text, number, task) if as_json or (source == STDIN and text[0] == "{") else None
            asked = found or Asked(number, *_line(text, task))
            require_text("prompt", str(asked.prompt))
            yield asked
        except ValueError as error:
            raise placed(f"{name}, line {number}", error) from error


def _typed_in() -> Iterable[str]:
    """The lines of standard input, whatever letters the terminal is set to."""
    buffer = getattr(sys.stdin, "buffer", None)
    return sys.stdin if buffer is None else decoded("standard input", buffer)


def _record(text: str, number: int, task: Task | None) -> Asked:
    """A line of JSON."""
    record: Any = parse_json(text)
    if not isinstance(record, dict):
        raise ValueError(f"line must be a JSON object, got {shown(text)}")
    number_or_id = next((record[key] for key in IDS if isinstance(record.get(key), str | int)), number)
    if isinstance(record.get(MESSAGES), list):
        refuse_parts(record, (MESSAGES,))
        return Asked(number_or_id, *_chat(record[MESSAGES]))
    if task is not None:
        example = task.parse_record(text)
        if example is None:
            raise ValueError(f"line must be a prompt of task {task.name}, got {shown(text)}")
        return Asked(number_or_id, example.prompt, example)
    if not any(key in record for key in (INSTRUCTION, *FIELDS)):
        raise ValueError(
            f"line must have {', '.join(FIELDS)} or {MESSAGES}, got {', '.join(map(str, record)) or 'none'}"
        )
    there = [key for key in FIELDS if is_there(record, key)]
    asks = [key for key in there if key != "text"] or there  # beside a question `text` is often its answer
    asked = question(record, *(asks or [key for key in FIELDS if key in record]))
    return Asked(number_or_id, asked, Example(asked, ""))


def _chat(messages: Sequence[Any]) -> tuple[Prompt, Example]:
    wrong = [m for m in messages if not (isinstance(m, dict) and {"role", "content"} <= m.keys())]
    if wrong or not messages:
        raise ValueError(
            f"messages must be a list of objects with role and content, got {shown((wrong or [messages])[0])}"
        )
    if messages[-1]["role"] == "assistant":
        raise ValueError("messages must end before the answer that is asked for, got one of the assistant last")
    return tuple(messages), Example(str(messages[-1]["content"]), "")


def _line(text: str, task: Task | None) -> tuple[Prompt, Example]:
    """A line of plain text."""
    prompt, bar, response = text.partition("||")
    if task is None or task.row is not None or not bar:
        return _bare(text, task)
    task.canonical(prompt)
    return prompt, Example(prompt, response)


def _bare(text: str, task: Task | None) -> tuple[Prompt, Example]:
    """A prompt without an answer, put as the task asks it."""
    if not text:
        raise ValueError("prompt must hold at least one character, got ''")
    if task is None:
        return text, Example(text, "")
    task.canonical(text)
    return task.ask(text), Example(task.ask(text), "")
