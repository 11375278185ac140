"""The table that calibrations are replayed from: ``python -m train.outcomes --config configs/compare/checked.yaml``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from decoding.comparison.arms import Arm
from train.commands.command_line import GOES_ON, run, shipped
from train.commands.folders import MODEL, check_model, find_head
from train.outcomes.workload import order_jobs, require_positive, select_named
from train.tasks import get

if TYPE_CHECKING:
    from train.outcomes.jobs import How, Job, Table
    from train.tasks import Example


def outcomes(
    catalogue: list[Arm],
    task: str,
    arms: str | None = None,
    whole: str | None = None,
    num_prompts: int = 5600,
    num_rivals: int = 2800,
    streams: int = 16,
    slice_size: int = 1400,
    model: str | None = None,
    head: str | None = None,
    out: str = "checkpoints/runs/outcomes",
    devices: str = "",
    workers: int = 1,
    batch_size: int = 1400,
    seconds: float | None = None,
    seed: int = 1,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    tf32: bool = False,
) -> None:
    """Decode the same prompts with every decoder and keep one table of outcomes a task; see docs/calibration.md.

    Args:
        catalogue: the decoders, declared in a config.
        task: one or more tasks with a generator, with commas between them.
        arms: names of those to run, with commas between them; default all.
        whole: names of those that run on all prompts; the others run on the first num_rivals.
        num_prompts: test prompts of a task, fewer where it has no more.
        num_rivals: of these, the first that every decoder runs on.
        streams: of the generator, drawn side by side.
        slice_size: prompts of a piece of work.
        model: checkpoint folder or hub id; default the shipped model.
        head: folder of a scoring head; default the one that ships for the model.
        out: folder for TASK.npz and the pieces that a later call goes on with.
        devices: cuda:0,cuda:1, ...; default the GPU if there is one.
        workers: processes on each device.
        batch_size: canvases of a forward at most.
        seconds: after which no piece of work is begun; the tables hold what is done.
        seed: of prompts and random arms.
        dtype: of the weights; default float32 on the CPU, the checkpoint's own elsewhere.
        tf32: faster matrix products on a GPU, with inputs of 10 bits.
    """
    numbers = {"num_prompts": num_prompts, "num_rivals": num_rivals, "streams": streams, "slice_size": slice_size}
    require_positive(numbers | {"workers": workers, "batch_size": batch_size})
    names = [get(name.strip()).name for name in task.split(",")]
    check_model(str(shipped(MODEL)) if model is None else model, "")
    head = find_head(model, head)
    running = select_named(catalogue, arms, has_head=head is not None)
    from train.outcomes.jobs import How, run_jobs
    from train.outcomes.pool import draw_pools

    everywhere = [arm.name for arm in running] if whole is None else [name.strip() for name in whole.split(",")]
    how = How(str(shipped(MODEL)) if model is None else model, head, dtype, tf32, batch_size, seed)
    started = time.monotonic()
    pools = draw_pools(names, num_prompts, seed=seed, streams=streams)
    sizes = {name: (len(pool), min(len(pool), num_rivals)) for name, pool in pools.items()}
    jobs = order_jobs(running, everywhere, sizes, slice_size)
    left = None if seconds is None else seconds - (time.monotonic() - started)
    done = run_jobs(jobs, how, pools, Path(out) / "pieces", devices=devices.split(","), workers=workers, seconds=left)
    print(save_tables(running, jobs, done, how, pools, Path(out)))


def save_tables(
    arms: Sequence[Arm],
    jobs: Sequence[Job],
    done: Mapping[str, Table],
    how: How,
    pools: Mapping[str, Sequence[Example]],
    out: Path,
) -> str:
    """Write TASK.npz of every task, and say how much of it there is.

    Args:
        arms: that ran.
        jobs: all of them.
        done: name of a job -> its outcomes.
        how: what they shared.
        pools: task -> prompts.
        out: folder.
    """
    from dataclasses import asdict

    import torch

    from decoding.provenance import environment
    from train.outcomes.jobs import hash_of, pack

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    said, where = [], environment(device=device, seed=how.seed)
    for task, pool in pools.items():
        own = [job for job in jobs if job.task == task]
        about = {**asdict(how), "prompts": hash_of(pool), "environment": where}
        pack(task, arms, done, own, about).save(out / f"{task}.npz")
        finished = sum(job.name in done for job in own)
        said.append(f"{task}: {finished} of {len(own)} pieces, {len(pool)} prompts, {out / f'{task}.npz'}")
    return "\n".join(said)


if __name__ == "__main__":
    run(outcomes, kept=GOES_ON)
