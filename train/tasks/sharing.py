"""Prompts of a user's file shared out: those to fit on, and dev prompts to choose by."""

from __future__ import annotations

import hashlib

from train.tasks.task import Example, Task

DEV = 304  # dev prompts at most that train prompts become where the file has fewer of its own


def shared_out(task: Task, file: str, split: str) -> list[Example]:
    """The prompts of a split in a file that need not hold as many as are asked for.

    Test prompts stay out of both. Where the file has fewer than DEV dev prompts, train prompts become such until it has, a quarter
    of the prompts at most, those whose hash is smallest.

    Raises:
        ValueError: if the file holds fewer than two prompts to share out.
    """
    found = {example.prompt: example for example in task.read(file) if task.split_of(example.prompt) != "test"}
    if len(found) < 2:
        raise ValueError(
            f"{file} must hold a prompt to fit on and one to judge by beside those of the test split, got {len(found)}"
        )
    dev = {prompt for prompt in found if task.split_of(prompt) == "dev"}
    others = sorted(found.keys() - dev, key=lambda prompt: hashlib.blake2b(prompt.encode()).digest())
    dev |= set(others[: max(0, max(1, min(DEV, len(found) // 4)) - len(dev))])
    return [example for prompt, example in found.items() if (prompt in dev) == (split == "dev")]
