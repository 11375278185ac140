"""Prompts of a task from several streams of its generator at once, for tasks that take long to draw."""

from __future__ import annotations

import itertools
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from train.tasks import Example, get

DRAWS = 20  # instances drawn at most for each one wanted, where a task has few
STREAM = 1000  # seeds between two pools


def draw_stream(task: str, count: int, seed: int) -> list[Example]:
    """The first `count` different test instances of one stream, fewer where the task has no more."""
    found: dict[str, Example] = {}
    for example in itertools.islice(get(task).generate("test", seed=seed), DRAWS * count):
        found.setdefault(example.prompt, example)
        if len(found) == count:
            break
    return list(found.values())


def draw_pools(tasks: list[str], count: int, *, seed: int, streams: int) -> dict[str, list[Example]]:
    """Different test prompts of every task, in the order of the streams; the same for any number of processor cores.

    Args:
        tasks: names.
        count: of a task, at most.
        seed: stream i has the seed 1000 seed + i.
        streams: drawn by as many processes.

    Returns:
        Task -> its prompts.
    """
    share = -(-count // streams) * 11 // 10 + 2  # two streams may hold the same instance
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        drawn = {
            name: [pool.submit(draw_stream, name, share, STREAM * seed + i) for i in range(streams)] for name in tasks
        }
        return {name: merge([stream.result() for stream in found], count) for name, found in drawn.items()}


def merge(streams: list[list[Example]], count: int) -> list[Example]:
    """The first `count` different examples, one of each stream in turn."""
    turns = itertools.chain.from_iterable(itertools.zip_longest(*streams))
    found = {example.prompt: example for example in turns if example is not None}
    return list(itertools.islice(found.values(), count))
