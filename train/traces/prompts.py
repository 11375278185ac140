"""The prompts that a run takes from a task."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, cast

from train.head.settings import TaskRun
from train.tasks.hub import HUB
from train.tasks.task import Example, Task

DEV = 304  # dev prompts at most that train prompts become where the file has fewer of its own


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


def shared_out(task: Task, file: str, split: str) -> list[Example]:
    """The prompts of a split in a file that need not hold as many as are asked for.

    Test prompts stay out of both. Where the file has fewer than DEV dev prompts, train prompts become such until it has, a quarter
    of the prompts at most, those whose hash is smallest.

    Raises:
        ValueError: if the file holds fewer than two prompts to share out.
    """
    stored = Path(file).stat() if file != HUB and Path(file).is_file() else None
    version = None if stored is None else (stored.st_size, stored.st_mtime_ns)
    return list(_both_splits(task, file, version)["dev" if split == "dev" else "train"])


@lru_cache(maxsize=4)
def _both_splits(task: Task, file: str, version: tuple[int, int] | None) -> dict[str, list[Example]]:
    """What `shared_out` gives of either split; a fit asks for it several times, and a large file takes seconds to read."""
    splits = ((example, task.split_of(example.prompt)) for example in task.read(file))
    found = {example.prompt: (example, split) for example, split in splits if split != "test"}
    if len(found) < 2:
        raise ValueError(
            f"{file} must hold a prompt to fit on and one to judge by beside those of the test split, got {len(found)}"
        )
    dev = {prompt for prompt, (_, split) in found.items() if split == "dev"}
    others = sorted(found.keys() - dev, key=lambda prompt: hashlib.blake2b(prompt.encode()).digest())
    dev |= set(others[: max(0, max(1, min(DEV, len(found) // 4)) - len(dev))])
    shared: dict[str, list[Example]] = {"train": [], "dev": []}
    for prompt, (example, _) in found.items():
        shared["dev" if prompt in dev else "train"].append(example)
    return shared


def held(task: Task, run: TaskRun) -> TaskRun:
    """The run with as many prompts of each split as its file holds, where it takes what there is and that is less."""
    if run.prompts_file is None or not run.at_most:
        return run
    train, dev = (len(shared_out(task, run.prompts_file, split)) for split in ("train", "dev"))
    return replace(run, prompts=max(1, min(run.prompts, train)), dev_prompts=max(1, min(run.dev_prompts, dev)))
