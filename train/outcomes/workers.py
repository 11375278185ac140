"""Processes that each hold a model and take the next piece of work."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

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
    with ProcessPoolExecutor(len(devices) * workers, mp_context=context, **start) as pool:
        asked = {pool.submit(_run, job): job for job in jobs if job.name not in done}
        for future in _finished(asked, begun, seconds):
            name, table = asked[future].name, future.result()
            done[name] = table
            with (folder / f"{name}.part").open("wb") as file:
                np.save(file, table)
            (folder / f"{name}.part").replace(folder / name)
    return done


def _finished(asked: Mapping[Future[Table], Job], begun: float, seconds: float | None) -> Iterator[Future[Table]]:
    """Jobs as they end; once the time is over those not begun are cancelled."""
    waiting = set(asked)
    with tqdm(total=len(asked), disable=None) as bar:
        while waiting:
            ended, waiting = wait(waiting, timeout=1.0, return_when="FIRST_COMPLETED")
            if seconds is not None and time.monotonic() - begun > seconds:
                waiting = {future for future in waiting if not future.cancel()}
            for future in ended:
                bar.update()
                yield future


def _load(how: How, pools: Mapping[str, Sequence[Example]], free: Any) -> None:
    _worker.append(Worker.start(how, pools, free.get()))


def _run(job: Job) -> Table:
    return _worker[0].run(job)
