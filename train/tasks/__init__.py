"""The tasks by name."""

from collections.abc import Sequence
from dataclasses import replace

from decoding.names import nearest
from models.complaints import shown
from train.tasks.benchmarks.aime import AIME24, AIME25
from train.tasks.benchmarks.gsm8k import GSM8K
from train.tasks.benchmarks.humaneval import HUMANEVAL
from train.tasks.benchmarks.math500 import MATH500
from train.tasks.benchmarks.mbpp import MBPP
from train.tasks.benchmarks.mmlu_pro import MMLU_PRO
from train.tasks.puzzles.addition import ADDITION, ADDITION_CARRY, ADDITION_EASY, ADDITION_EDGE
from train.tasks.puzzles.countdown import COUNTDOWN3, COUNTDOWN4
from train.tasks.puzzles.drills import ARITHMETIC
from train.tasks.puzzles.lists import LISTS
from train.tasks.puzzles.multiplication import MULTIPLICATION
from train.tasks.puzzles.sudoku import SUDOKU, SUDOKU_HARD
from train.tasks.puzzles.words import WORDS
from train.tasks.renumbered.gsm8k_renumbered import GSM8K_RENUMBERED, GSM8K_RENUMBERED_HEADS
from train.tasks.task import Example, Split, Task
from train.tasks.text import TEXT

TASKS: dict[str, Task] = {
    task.name: task for task in (SUDOKU, SUDOKU_HARD, COUNTDOWN3, COUNTDOWN4, MULTIPLICATION, LISTS, WORDS)
}
RENUMBERED: dict[str, Task] = {  # generators over rows of a file, and sums to practise on: what gsm-12m is fitted on
    task.name: task for task in (GSM8K_RENUMBERED, GSM8K_RENUMBERED_HEADS, ARITHMETIC)
}
ADDITIONS: dict[str, Task] = {  # what the small bases of the study `order` are fitted on
    task.name: task for task in (ADDITION, ADDITION_EASY, ADDITION_CARRY, ADDITION_EDGE)
}
BENCHMARKS: dict[str, Task] = {
    task.name: task for task in (GSM8K, MATH500, AIME24, AIME25, HUMANEVAL, MBPP, MMLU_PRO, TEXT)
}


def get(name: str, *, run_code: bool = False) -> Task:
    """Look a task up.

    Args:
        name: of a task with a generator or of a benchmark.
        run_code: allow the checker to run what the model wrote, where the task needs that; without it such a checker refuses.

    Raises:
        ValueError: for an unknown name, naming the known tasks.
    """
    known = TASKS | RENUMBERED | ADDITIONS | BENCHMARKS
    if name not in known:
        raise ValueError(f"task must be one of {', '.join(known)}, got {shown(name)}{nearest(name, known)}")
    task = known[name]
    return task if run_code or not task.runs_code else replace(task, check=_refuse)


def require_permission(task: Task, run_code: bool) -> None:
    """Refuse a task whose checker runs what the model wrote, where the user has not allowed that.

    Raises:
        ValueError: in one sentence.
    """
    if task.runs_code and not run_code:
        raise ValueError(
            f"run_code must be true for task {task.name}, whose checker runs the model's code here, got false"
        )


def require_answers(task: Task, examples: Sequence[Example]) -> None:
    """Refuse examples that the task's checker cannot judge.

    Raises:
        ValueError: in one sentence, with how many there are.
    """
    unknown = sum(not task.judges(example) for example in examples)
    if unknown:
        raise ValueError(f"prompts of task {task.name} must come with answers to be judged, got {unknown} without")


def _refuse(example: Example, text: str) -> bool:
    raise ValueError("run_code must be true for a checker that runs the model's code here, got false")


__all__ = [
    "ADDITIONS",
    "BENCHMARKS",
    "RENUMBERED",
    "TASKS",
    "Example",
    "Split",
    "Task",
    "get",
    "require_answers",
    "require_permission",
]
