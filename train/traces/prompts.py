"""The prompts that a run takes from a task."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any, cast

from train.head.settings import TaskRun
from train.tasks.sharing import shared_out
from train.tasks.task import Example, Task


def prompts_of(task: Task, run: TaskRun, split: str, count: int, *, seed: int) -> list[Example]:
    """The first `count` prompts of a split, from the run's file or the task's generator.

    Args:
        task, run: the task, and what a run takes from it, its file among that.
        split, count, seed: train or dev; prompts wanted; of the generator.

    Raises:
        ValueError: if the file holds fewer.
    """
    if run.prompts_file is None:
        return list(islice(task.generate(cast(Any, split), seed=seed), count))
    if run.at_most:
        return shared_out(task, run.prompts_file, split)[:count]
    examples = list(islice((e for e in task.read(run.prompts_file) if task.split_of(e.prompt) == split), count))
    if len(examples) < count:
        raise ValueError(f"{run.prompts_file} must hold {count} prompts of the {split} split, got {len(examples)}")
    return examples


def held(task: Task, run: TaskRun) -> TaskRun:
    """The run with as many prompts of each split as its file holds, where it takes what there is and that is less."""
    if run.prompts_file is None or not run.at_most:
        return run
    train, dev = (len(shared_out(task, run.prompts_file, split)) for split in ("train", "dev"))
    return replace(run, prompts=max(1, min(run.prompts, train)), dev_prompts=max(1, min(run.dev_prompts, dev)))
