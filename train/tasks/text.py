"""A user's own prompts: no checker, so traces are labelled by what the careful decoder makes of a position left for last."""

from train.tasks.benchmarks.benchmark import benchmark, optional
from train.tasks.question import question
from train.tasks.task import Example, Row


def read(row: Row) -> Example:
    """Read a record with `prompt` (or `instruction`, `input`, `question`, `text`) and, if there is one, a reference text."""
    return Example(
        question(row, "prompt", "input", "question", "text"),
        optional(row, "response", "output", "answer", "completion"),
    )


def check(example: Example, text: str) -> bool:
    """No text is known to be right; nothing asks, as no example has an answer."""
    return False


TEXT = benchmark("text", read, check, ask=str, hub=None)
