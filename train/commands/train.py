"""`python train.py` from base to table: traces, heads, metrics, comparison."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from decoding.comparison.arms import BLOCK_LENGTH
from train.commands.command_line import keep_options
from train.commands.compare import CompareCall, check_compare, run_compare
from train.head.settings import names_of
from train.tasks import get
from train.tasks.text import TEXT

if TYPE_CHECKING:
    from models.denoiser import Denoiser
    from models.heads.scoring_head import ScoringHead

from train.head.drivers import make_drivers
from train.head.head_run import HeadRun, load_base, quieten, reference_policy

log = logging.getLogger(__name__)


def run_train(head_run: HeadRun) -> str:
    """Do everything, going on where a run with the same settings was cut off; returns the tables."""
    from train.head.fit import fit, prepare

    quieten()
    compare_call(head_run, None)  # what cannot be compared in the end is refused now
    if head_run.budget_hours is None:
        require_rows(head_run)
    denoiser = load_base(head_run)
    beam = reference_policy(head_run, denoiser)
    threshold, about = beam.threshold, provenance_of(head_run, denoiser)
    if head_run.budget_hours is not None:
        from train.head.estimate import cut_to_budget

        head_run = cut_to_budget(head_run, denoiser, beam)
        require_rows(head_run)
    folders = gather(head_run, denoiser, beam, head_run.drivers, "traces", None)
    if head_run.relabel:
        first = replace(head_run.fitting, variants=head_run.fitting.variants[:1], seeds=1)
        data = prepare(denoiser, folders, first, threshold=threshold, seed=head_run.seed)
        head = fit(denoiser, data, first, head_run.out / "first", threshold=threshold, seed=head_run.seed)[
            first.variants[0]
        ]
        folders += gather(head_run, denoiser, beam, head_run.relabel, "traces-own", head)
    data = prepare(denoiser, folders, head_run.fitting, threshold=threshold, seed=head_run.seed)
    heads = fit(denoiser, data, head_run.fitting, head_run.out, threshold=threshold, seed=head_run.seed, about=about)
    if head_run.cascade is not None:
        from train.cascade.fit import fit_cascade

        cast(Any, denoiser).put_on(heads[head_run.fitting.variants[0]])
        log.info(fit_cascade(denoiser, head_run.tasks, head_run.cascade, head_run.out, seed=head_run.seed))
    return compare_heads(head_run)


def provenance_of(head_run: HeadRun, denoiser: Denoiser) -> dict[str, Any]:
    """What metrics.json says of a fit: the base by name and fingerprint, the tasks it saw, and those left out."""
    base = {
        "name": Path(head_run.base).name if Path(head_run.base).is_dir() else head_run.base,
        "fingerprint": denoiser.fingerprint(),
    }
    return {"fitted_on": base, "tasks": list(head_run.tasks), "left_out": list(names_of(head_run.leave_out))}


def require_rows(head_run: HeadRun) -> None:
    """Refuse a file with fewer prompts than a task asks for, before another task is collected.

    Raises:
        ValueError: naming the file, or in it a row that cannot be read.
    """
    from train.head.fit import prompts_of

    for name, run in head_run.tasks.items():
        if run.prompts_file is not None:
            for split, count in (("train", run.prompts), ("dev", run.dev_prompts)):
                prompts_of(get(name), run, split, count, seed=head_run.seed)


def gather(
    head_run: HeadRun,
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

    budget = (
        float("inf") if head_run.budget_hours is None else head_run.budget_hours * 3600 / (2 if head_run.relabel else 1)
    )
    end = clock() + budget
    total = sum(run.prompts + run.dev_prompts for run in head_run.tasks.values())
    with tqdm(total=total, desc=name, unit="prompt") as bar:
        collect(
            denoiser,
            head_run.tasks,
            head_run.out / name,
            beam=beam,
            drivers=make_drivers(drivers, denoiser, head),
            labelling=head_run.labelling,
            batch_size=head_run.batch_size,
            seed=head_run.seed + (head is not None),
            beam_drives=head is None,
            blocks={name: driver[BLOCK_LENGTH] for name, driver in drivers.items() if BLOCK_LENGTH in driver},
            run_code=head_run.run_code,
            stop=lambda: clock() > end,
            judged=keep_options,
            progress=lambda count: _advance(bar, count),
        )
    return [head_run.out / name / task for task in head_run.tasks]


def _advance(bar: Any, count: int) -> None:
    bar.update(count)


def compare_heads(head_run: HeadRun) -> str:
    """The fitted head and its rivals on the same fresh prompts, through the code of `compare.py`."""
    if not head_run.catalogue:
        return "no arms to compare"
    call = compare_call(head_run, str(head_run.out))
    if call is None:
        return "no task with a checker to compare on"
    return run_compare(
        call,
        out=str(head_run.out),
        batch_size=head_run.batch_size,
        seed=head_run.seed,
        device=head_run.device,
        dtype=head_run.dtype,
    )


def compare_call(head_run: HeadRun, head: str | None) -> CompareCall | None:
    """The closing comparison of a head, None where there is none; without a head only what does not need one.

    Raises:
        ValueError: if a task's prompts are too few or cannot be judged.
    """
    judged = [name for name in head_run.tasks if name != TEXT.name]
    if not head_run.catalogue or not judged:
        return None
    return check_compare(
        head_run.catalogue,
        None,
        ",".join(judged),
        num_prompts=head_run.num_prompts,
        num_dev=head_run.num_dev,
        seed=head_run.seed,
        model=head_run.base,
        adapter=head_run.adapter,
        head=head,
        prompts={name: run.prompts_file for name, run in head_run.tasks.items() if run.prompts_file is not None},
        run_code=head_run.run_code,
    )
