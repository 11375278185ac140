"""Processes that each hold a model and take the next piece of work."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from train.outcomes.jobs import How, Job, Table, Worker, read_done
from train.tasks import Example

_worker: list[Worker] = []  # of a worker process: the model that it has loaded


def run_jobs(
    jobs: Sequence[Job],
    how: How,
    pools: Mapping[str, Sequence[Example]],
    folder: Path,
    *,
    devices: Sequence[str],
    workers: int,
    seconds: float | None,
) -> dict[str, Table]:
    """Run every job that has not run yet, and keep its outcomes.

    Args:
        jobs: in their order.
        how: what they share.
        pools: task -> prompts.
        folder: of the outcomes of every job.
        devices: to run on; an empty name takes the default.
        workers: processes on each.
        seconds: after which no job is begun.

    Returns:
        Name of a job -> its outcomes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = read_done(folder, jobs)
    context, begun = get_context("spawn"), time.monotonic()
    free: Any = context.Queue()
    for device in list(devices) * workers:
        free.put(device or None)
    start: dict[str, Any] = {"initializer": _load, "initargs": (how, pools, free)}
    count = len(devices) * workers
    with ProcessPoolExecutor(count, mp_context=context, **start) as pool:
        to_do = (job for job in jobs if job.name not in done)
        in_time = itertools.takewhile(lambda _: seconds is None or time.monotonic() - begun < seconds, to_do)
        for job, table in _finished(pool, in_time, count):
            done[job.name] = table
            with (folder / f"{job.name}.part").open("wb") as file:
                np.save(file, table)
            (folder / f"{job.name}.part").replace(folder / job.name)
    return done


def _finished(pool: ProcessPoolExecutor, jobs: Iterator[Job], count: int) -> Iterator[tuple[Job, Table]]:
    """Jobs with their outcomes as they end; no more are begun than there are processes."""
    running = {pool.submit(_run, job): job for job in itertools.islice(jobs, count)}
    while running:
        ended, _ = wait(running, return_when="FIRST_COMPLETED")
        for future in ended:
            job = running.pop(future)
            running |= {pool.submit(_run, another): another for another in itertools.islice(jobs, 1)}
            yield job, future.result()


def _load(how: How, pools: Mapping[str, Sequence[Example]], free: Any) -> None:
    _worker.append(Worker.start(how, pools, free.get()))


def _run(job: Job) -> Table:
    return _worker[0].run(job)
