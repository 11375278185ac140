"""`python train.py` from base to table: traces, heads, metrics, comparison."""

from __future__ import annotations

import logging
import shutil
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
    from train.head.fit import Data
    from train.head.settings import CascadeFitting, TaskRun
    from train.head.trial_settings import Trials

from train.head.drivers import make_drivers
from train.head.head_run import HeadRun, load_base, quieten, reference_policy
from train.head.stages import asked, cascade_done, fitted, mark_fitted

log = logging.getLogger(__name__)


def run_train(job: HeadRun) -> str:
    """Do everything, going on where a run with the same settings was cut off; returns the tables and what was won."""
    quieten()
    contest_of(job, None)  # what cannot be compared in the end is refused now
    if job.budget_hours is None:
        require_rows(job)
    denoiser = load_base(job)
    beam = reference_policy(job, denoiser)
    if job.budget_hours is not None:
        from train.head.estimate import cut_to_budget

        job = cut_to_budget(job, denoiser, beam)
        require_rows(job)
    folders = gather(job, denoiser, beam, job.drivers, "traces", None)
    head = fit_heads(job, denoiser, beam, folders)
    cast(Any, denoiser).put_on(head)
    if job.cascade is not None:
        fit_own_cascade(job, denoiser, job.cascade, asked(job, denoiser, folders))
    won = [] if job.trials is None else [settle(job, denoiser, job.trials)]
    return "\n\n".join([compare_heads(job), *won])


def fit_heads(job: HeadRun, denoiser: Denoiser, beam: Any, folders: list[Path]) -> ScoringHead:
    """Fit the heads of a run, or read back those that it fitted before; `folders` gets the traces of the second pass as well."""
    from models.heads.cascade import CASCADE
    from models.heads.defaults import ALONE, CAREFUL, FILE, Defaults
    from models.heads.scoring_head import save_head
    from train.head.fit import fit, prepare
    from train.head.trust import trust

    threshold, seed = beam.threshold, job.seed
    if job.relabel:
        first = replace(job.fitting, variants=job.fitting.variants[:1], seeds=1)
        data = prepare(denoiser, folders, first, threshold=threshold, seed=seed)
        one = fit(denoiser, data, first, job.out / "first", threshold=threshold, seed=seed)[first.variants[0]]
        folders += gather(job, denoiser, beam, job.relabel, "traces-own", one)
    before = fitted(job.out, asked(job, denoiser, folders), denoiser)
    if before is not None:
        log.info("the heads are fitted already")
        return before
    shutil.rmtree(job.out / CASCADE, ignore_errors=True)  # what belongs to another head
    (job.out / FILE).unlink(missing_ok=True)
    data = prepare(denoiser, folders, job.fitting, threshold=threshold, seed=seed)
    tell_states(data)
    about = provenance_of(job, denoiser)
    head = fit(denoiser, data, job.fitting, job.out, threshold=threshold, seed=seed, about=about)[
        job.fitting.variants[0]
    ]
    labels = trust(head, data, seed=seed)
    if job.trials is not None:
        head.defaults = Defaults(ALONE, CAREFUL, 0)  # until dev prompts have chosen others
    save_head(head, job.out)
    mark_fitted(job.out, asked(job, denoiser, folders))
    log.info("of the head's correction %.0f %% are trusted (%d held-out labels)", 100 * head.config.trust, labels)
    return head


def tell_states(data: Data) -> None:
    """Say how many states and positions each task has to fit on."""
    for task in sorted(set(data.train_task)):
        mine = [batch for batch, of in zip(data.train.batches, data.train_task, strict=True) if of == task]
        states, positions = (
            sum(len(one.state_index) for one in mine),
            sum(int(one.state.feasible.sum()) for one in mine),
        )
        log.info("%s: %d states with %d positions to fit the head on", task, states, positions)


def fit_own_cascade(job: HeadRun, denoiser: Denoiser, fitting: CascadeFitting, name: str) -> None:
    """Fit the cascade of the head on the denoiser, or read back the one that the run fitted before."""
    from models.heads.cascade import CASCADE, load_cascade
    from train.cascade.fit import fit_cascade

    if cascade_done(job.out, fitting, name):
        log.info("the cascade is fitted already")
        denoiser.head.cascade = load_cascade(job.out / CASCADE, denoiser)
        return
    log.info("fitting the cascade, %g minutes", fitting.minutes)
    log.info(fit_cascade(denoiser, job.tasks, fitting, job.out, seed=job.seed, asked=name))


def settle(job: HeadRun, denoiser: Denoiser, trials: Trials) -> str:
    """Choose the settings that the head decodes with by default, and say what was won; writes them and the model card."""
    from train.head.defaults import choose_defaults, first_prompts
    from train.head.ending import leave, usage_of

    how: dict[str, Any] = {"batch_size": job.batch_size, "seed": job.seed, "run_code": job.run_code}
    log.info("trying settings on dev prompts")
    choice = choose_defaults(denoiser, job.tasks, trials, job.out, **how)
    usage = usage_of(job.out, first_prompts(job.tasks, seed=job.seed), job.model)
    return leave(job.out, choice, about_of(job, denoiser), usage)


def about_of(job: HeadRun, denoiser: Denoiser) -> dict[str, str]:
    """What the model card says of how the head was made."""
    from decoding.provenance import environment

    made = environment(device=denoiser.device, seed=job.seed)
    tasks = ", ".join(f"{name} ({run.prompts} prompts, {run.dev_prompts} dev)" for name, run in job.tasks.items())
    cascade = "none" if job.cascade is None else f"{job.cascade.minutes:g} minutes, {job.cascade.blocks} blocks"
    return {
        "base": f"{Path(job.base).name} ({denoiser.fingerprint()[:12]})",
        "tasks": tasks,
        "left out": job.leave_out or "none",
        "head": f"{job.fitting.variants[0]}, {job.fitting.epochs} epochs, {100 * denoiser.head.config.trust:.0f} % trusted",
        "cascade": cascade,
        "made by": f"{made['command']}, commit {made['commit']}, seed {job.seed}, {made['device']}",
    }


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
    how: dict[str, Any] = {"batch_size": job.batch_size, "seed": job.seed, "device": job.device, "dtype": job.dtype}
    return hold(contest, out=str(job.out), narrow=True, **how)


def comparable(name: str, run: TaskRun) -> bool:
    """Whether decoders can be compared on a task: not on a user's file without answers, or with too few prompts to share out."""
    task = get(name)
    if name == TEXT.name or task.make is not None or not run.at_most or run.prompts_file is None:
        return name != TEXT.name
    found = list(task.read(run.prompts_file))
    splits = {task.split_of(example.prompt) for example in found}
    return {"dev", "test"} <= splits and all(task.judges(example) for example in found)


def contest_of(job: HeadRun, head: str | None) -> CompareCall | None:
    """The closing comparison of a head, None where there is none; without a head only what does not need one.

    Raises:
        ValueError: if a task's prompts are too few or cannot be judged.
    """
    judged = [name for name in job.tasks if comparable(name, job.tasks[name])]
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
