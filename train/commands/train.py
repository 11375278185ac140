"""`python train.py` from base to table: traces, heads, metrics, comparison."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from decoding.comparison.arms import BLOCK_LENGTH
from train.commands.compare import CompareCall, hold, judge
from train.head.settings import names_of
from train.tasks import get
from train.tasks.text import TEXT

if TYPE_CHECKING:
    from models.denoiser import Denoiser
    from models.heads.scoring_head import ScoringHead

from train.head.drivers import make_drivers
from train.head.head_run import HeadRun, load_base, quieten, reference_policy

log = logging.getLogger(__name__)


def run_train(job: HeadRun) -> str:
    """Do everything, going on where a run with the same settings was cut off; returns the tables."""
    from train.head.fit import fit, prepare

    quieten()
    contest_of(job, None)  # what cannot be compared in the end is refused now
    if job.budget_hours is None:
        require_rows(job)
    denoiser = load_base(job)
    beam = reference_policy(job, denoiser)
    threshold, about = beam.threshold, provenance_of(job, denoiser)
    if job.budget_hours is not None:
        from train.head.estimate import cut_to_budget

        job = cut_to_budget(job, denoiser, beam)
        require_rows(job)
    folders = gather(job, denoiser, beam, job.drivers, "traces", None)
    if job.relabel:
        first = replace(job.fitting, variants=job.fitting.variants[:1], seeds=1)
        data = prepare(denoiser, folders, first, threshold=threshold, seed=job.seed)
        head = fit(denoiser, data, first, job.out / "first", threshold=threshold, seed=job.seed)[first.variants[0]]
        folders += gather(job, denoiser, beam, job.relabel, "traces-own", head)
    data = prepare(denoiser, folders, job.fitting, threshold=threshold, seed=job.seed)
    heads = fit(denoiser, data, job.fitting, job.out, threshold=threshold, seed=job.seed, about=about)
    if job.cascade is not None:
        from train.cascade.fit import fit_cascade

        cast(Any, denoiser).put_on(heads[job.fitting.variants[0]])
        log.info(fit_cascade(denoiser, job.tasks, job.cascade, job.out, seed=job.seed))
    return compare_heads(job)


def provenance_of(job: HeadRun, denoiser: Denoiser) -> dict[str, Any]:
    """What metrics.json says of a fit: the base by name and fingerprint, the tasks it saw, and those left out."""
    base = {"name": Path(job.base).name if Path(job.base).is_dir() else job.base, "fingerprint": denoiser.fingerprint()}
    return {"fitted_on": base, "tasks": list(job.tasks), "left_out": list(names_of(job.leave_out))}


def require_rows(job: HeadRun) -> None:
    """Refuse a file with fewer prompts than a task asks for, before another task is collected.

    Raises:
        ValueError: naming the file, or in it a row that cannot be read.
    """
    from train.head.fit import prompts_of

    for name, run in job.tasks.items():
        if run.prompts_file is not None:
            for split, count in (("train", run.prompts), ("dev", run.dev_prompts)):
                prompts_of(get(name), run, split, count, seed=job.seed)


def gather(
    job: HeadRun,
    denoiser: Denoiser,
    beam: Any,
    drivers: Mapping[str, Mapping[str, Any]],
    name: str,
    head: ScoringHead | None,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> list[Path]:
    """Collect the traces of all tasks with a progress bar; returns one folder for each task.

    Of the hours given each pass has an equal share.
    """
    from tqdm import tqdm

    from train.head.fit import collect

    budget = float("inf") if job.budget_hours is None else job.budget_hours * 3600 / (2 if job.relabel else 1)
    end = clock() + budget
    total = sum(run.prompts + run.dev_prompts for run in job.tasks.values())
    with tqdm(total=total, desc=name, unit="prompt") as bar:
        collect(
            denoiser,
            job.tasks,
            job.out / name,
            beam=beam,
            drivers=make_drivers(drivers, denoiser, head),
            labelling=job.labelling,
            batch_size=job.batch_size,
            seed=job.seed + (head is not None),
            beam_drives=head is None,
            blocks={name: entry[BLOCK_LENGTH] for name, entry in drivers.items() if BLOCK_LENGTH in entry},
            run_code=job.run_code,
            stop=lambda: clock() > end,
            progress=lambda count: _advance(bar, count),
        )
    return [job.out / name / task for task in job.tasks]


def _advance(bar: Any, count: int) -> None:
    bar.update(count)


def compare_heads(job: HeadRun) -> str:
    """The fitted head and its rivals on the same fresh prompts, through the code of `compare.py`."""
    if not job.catalogue:
        return "no arms to compare"
    contest = contest_of(job, str(job.out))
    if contest is None:
        return "no task with a checker to compare on"
    return hold(contest, out=str(job.out), batch_size=job.batch_size, seed=job.seed, device=job.device, dtype=job.dtype)


def contest_of(job: HeadRun, head: str | None) -> CompareCall | None:
    """The closing comparison of a head, None where there is none; without a head only what does not need one.

    Raises:
        ValueError: if a task's prompts are too few or cannot be judged.
    """
    judged = [name for name in job.tasks if name != TEXT.name]
    if not job.catalogue or not judged:
        return None
    return judge(
        job.catalogue,
        None,
        ",".join(judged),
        num_prompts=job.num_prompts,
        num_dev=job.num_dev,
        seed=job.seed,
        model=job.base,
        adapter=job.adapter,
        head=head,
        prompts={name: run.prompts_file for name, run in job.tasks.items() if run.prompts_file is not None},
        run_code=job.run_code,
    )
