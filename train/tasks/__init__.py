"""The tasks by name."""

from train.tasks.countdown import COUNTDOWN3, COUNTDOWN4
from train.tasks.lists import LISTS
from train.tasks.multiplication import MULTIPLICATION
from train.tasks.sudoku import SUDOKU, SUDOKU_HARD
from train.tasks.task import Example, Split, Task
from train.tasks.words import WORDS

TASKS: dict[str, Task] = {
    task.name: task for task in (SUDOKU, SUDOKU_HARD, COUNTDOWN3, COUNTDOWN4, MULTIPLICATION, LISTS, WORDS)
}


def get(name: str) -> Task:
    """Look a task up.

    Raises:
        ValueError: for an unknown name, naming the known tasks.
    """
    if name not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {name!r}")
    return TASKS[name]


__all__ = ["TASKS", "Example", "Split", "Task", "get"]
