"""The pieces in which a table of outcomes is run, one decoder over a slice of the prompts, and the processes that run them."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from decoding.comparison.arms import Arm, Cell
from decoding.comparison.replay.table import ANSWER, COUNTED, MISSING, OutcomeTable, StoredCell, number_texts
from decoding.files.aside import written_aside
from train.commands.calibrate import Canvas, make_problems
from train.tasks import Example, get

if TYPE_CHECKING:
    from models.denoiser import Denoiser

Table = NDArray[np.float64]


@dataclass(frozen=True)
class Job:
    """One decoder over one slice of the prompts of a task.

    Attributes:
        task: name.
        cell: the decoder.
        start, stop: of the slice.
    """

    task: str
    cell: Cell
    start: int
    stop: int

    @property
    def name(self) -> str:
        """Of the file with its outcomes."""
        return f"{self.task}-{self.cell.key}-{self.start}-{self.stop}.npy"


@dataclass(frozen=True)
class How:
    """What every job shares.

    Attributes:
        model: checkpoint folder or hub id.
        head: folder of its scoring head, or None.
        dtype: of the weights; None as in `models.load`.
        tf32: faster matrix products, with inputs of 10 bits.
        batch_size: canvases of a forward at most.
        seed: of policies that draw.
    """

    model: str
    head: str | None
    dtype: str | None
    tf32: bool
    batch_size: int
    seed: int


@dataclass(frozen=True)
class Worker:
    """A model on its device, with the prompts of every task."""

    denoiser: Denoiser
    pools: Mapping[str, Sequence[Example]]
    how: How

    @staticmethod
    def start(how: How, pools: Mapping[str, Sequence[Example]], device: str | None) -> Worker:
        """Load the model."""
        import torch

        import models

        torch.set_float32_matmul_precision("high" if how.tf32 else "highest")
        denoiser = models.load(how.model, head=how.head, dtype=how.dtype, device=device, engine="plain")
        return Worker(denoiser, pools, how)

    def run(self, job: Job) -> Table:
        """The outcomes of a job, [prompts, columns of a run]; in half the batches where the memory is too small."""
        import torch

        size = self.how.batch_size
        while True:
            try:
                return self._run(job, size)
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                size //= 2
                torch.cuda.empty_cache()

    def _run(self, job: Job, canvases: int) -> Table:
        from decoding.comparison.records.ledger import COLUMNS, Ledger
        from decoding.comparison.runs import run_cells
        from decoding.policy_by_name import make_policy

        kind = get(job.task)
        canvas = Canvas(kind.gen_length, kind.block_length, 0.0, "none")
        checked, _ = make_problems(kind, self.pools[job.task][job.start : job.stop], canvas)
        policy = make_policy(job.cell.policy, job.cell.policy_settings, self.denoiser)
        ledger = Ledger(None, {})
        batch_size = max(1, canvases // policy.needs.canvases)
        how: dict[str, Any] = {"batch_size": batch_size, "seed": self.how.seed, "progress": False}
        run_cells(ledger, checked.problems, "dev", [(job.cell, policy, self.denoiser)], checked.check, **how)
        table = ledger.table("dev", job.cell)
        return np.stack([table[name] for name in COLUMNS], 1)


def frozen(arm: Arm, task: str) -> Arm:
    """The arm on a task, at the one point of its tuning space.

    Raises:
        ValueError: for a space of more than one point, which dev prompts would have to choose from.
    """
    there = arm.on(task)
    points = there.draws(2, seed=0)
    if len(points) > 1:
        raise ValueError(f"tune of arm {arm.name} on {task} must hold one value of each setting, got {there.tune}")
    return points[0]


def jobs_of(task: str, arm: Arm, prompts: int, *, slice_size: int) -> list[Job]:
    """The jobs of an arm over the first prompts of a task.

    Args:
        task: name.
        arm: with its dial.
        prompts: how many.
        slice_size: prompts of a job at most.
    """
    starts = range(0, prompts, slice_size)
    return [Job(task, cell, s, min(s + slice_size, prompts)) for s in starts for cell in frozen(arm, task).cells]


def pack(
    task: str, arms: Sequence[Arm], done: Mapping[str, Table], jobs: Sequence[Job], about: Mapping[str, Any]
) -> OutcomeTable:
    """The table of a task from the jobs that are done.

    Args:
        task: name.
        arms: in the order of the table.
        done: name of a job -> its outcomes.
        jobs: all of the task.
        about: what was run.
    """
    from decoding.comparison.records.ledger import COLUMNS

    cells = [(arm, cell) for arm in arms for cell in frozen(arm, task).cells]
    row = {cell.key: index for index, (_, cell) in enumerate(cells)}
    prompts = max(job.stop for job in jobs)
    figures = np.full((len(cells), prompts, len(COLUMNS)), np.nan)
    for job in jobs:
        if job.name in done:
            figures[row[job.cell.key], job.start : job.stop] = done[job.name]
    columns = {
        name: np.nan_to_num(figures[:, :, COLUMNS.index(name)], nan=MISSING).astype(np.int32) for name in COUNTED
    }
    columns[ANSWER] = number_texts(figures[:, :, COLUMNS.index(ANSWER)])
    stored = tuple(
        StoredCell(cell.arm, arm.kind, cell.policy, arm.dial, cell.dial, dict(cell.settings)) for arm, cell in cells
    )
    return OutcomeTable(task, stored, columns, about)


def hash_of(pool: Sequence[Example]) -> str:
    """Names the prompts of a pool."""
    return hashlib.blake2b(json.dumps([example.prompt for example in pool]).encode(), digest_size=8).hexdigest()


def read_done(folder: Path, jobs: Sequence[Job]) -> dict[str, Table]:
    """The outcomes of jobs that an earlier call has finished."""
    return {job.name: np.load(folder / job.name) for job in jobs if (folder / job.name).is_file()}


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
            with written_aside(folder / job.name) as aside, aside.open("wb") as file:
                np.save(file, table)
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
