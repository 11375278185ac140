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
from models.ranks import by_the_first, the_first_before
from train.commands.closing_comparison import compare_call, compare_heads
from train.commands.command_line import keep_options
from train.commands.compare import tasks_that_fit
from train.head.head_run import HeadRun, load_base, quieten, reference_policy
from train.head.stages import asked, cascade_done, fitted, mark_fitted
from train.head.task_choice import names_of
from train.tasks import get
from train.traces.drivers import make_drivers

if TYPE_CHECKING:
    from models.denoiser import Denoiser
    from models.heads.scoring_head import ScoringHead
    from train.defaults.settings import Trials
    from train.head.fit import Data
    from train.head.settings import CascadeFitting

log = logging.getLogger(__name__)


def run_train(head_run: HeadRun) -> str:
    """Do everything, going on where a run with the same settings was cut off; returns the tables and what was won."""
    quieten()
    compare_call(head_run, None)  # what cannot be compared in the end is refused now
    if head_run.budget_hours is None:
        require_rows(head_run)
    denoiser = load_base(head_run)
    beam = reference_policy(head_run, denoiser)
    if head_run.cascade is not None:
        from train.cascade.fit import require_fitting

        require_fitting(denoiser, head_run.cascade)
    if head_run.budget_hours is not None:
        from train.head.estimate import cut_to_budget

        whole = head_run
        head_run = the_first_before(lambda: cut_to_budget(whole, denoiser, beam))
        require_rows(head_run)
    refuse_ledgers(head_run, denoiser)
    folders = gather(head_run, denoiser, beam, head_run.drivers, "traces", None)
    head = fit_heads(head_run, denoiser, beam, folders)
    cast(Any, denoiser).put_on(head)
    if head_run.cascade is not None:
        fit_own_cascade(head_run, denoiser, head_run.cascade, asked(head_run, denoiser, folders))
    trials = head_run.trials
    settled = None if trials is None else by_the_first(lambda: settle(head_run, denoiser, trials))
    won = [] if settled is None else [settled]
    return "\n\n".join([compare_heads(head_run), *won])


def refuse_ledgers(head_run: HeadRun, denoiser: Denoiser) -> None:
    """Refuse figures of another run in the folder, those of the trials and of the closing comparison, before anything is done.

    Raises:
        ValueError: naming what differs.
    """
    from decoding.comparison.runner import make_runner
    from train.defaults.search import refuse_trials

    how: dict[str, Any] = {"batch_size": head_run.batch_size, "seed": head_run.seed}
    if head_run.trials is not None:
        refuse_trials(denoiser, head_run.tasks, head_run.trials, head_run.out, run_code=head_run.run_code, **how)
    call = compare_call(head_run, None)
    for checked in () if call is None else tasks_that_fit(call, denoiser)[0]:
        make_runner(denoiser, checked.problems, checked.check, out=head_run.out, heads=None, progress=False, **how)


def fit_heads(head_run: HeadRun, denoiser: Denoiser, beam: Any, folders: list[Path]) -> ScoringHead:
    """Fit the heads of a run, or read back those that it fitted before; `folders` gets the traces of the second pass as well.

    Args:
        head_run: the run.
        denoiser: the base.
        beam: the look-ahead whose branches are labelled.
        folders: of the traces.
    """
    from models.heads.defaults import ALONE, CAREFUL, Defaults
    from models.heads.scoring_head import save_head
    from train.defaults.trust import trust
    from train.head.fit import fit, prepare

    threshold, seed = beam.threshold, head_run.seed
    if head_run.relabel:
        first = replace(head_run.fitting, variants=head_run.fitting.variants[:1], seeds=1)
        data = prepare(denoiser, folders, first, threshold=threshold, seed=seed)
        one = fit(denoiser, data, first, head_run.out / "first", threshold=threshold, seed=seed)[first.variants[0]]
        folders += gather(head_run, denoiser, beam, head_run.relabel, "traces-own", one)
    name = asked(head_run, denoiser, folders)
    before = fitted(head_run.out, name, denoiser)
    if before is not None:
        log.info("the heads are fitted already")
        return before
    data = prepare(denoiser, folders, head_run.fitting, threshold=threshold, seed=seed)
    tell_states(data)
    about = provenance_of(head_run, denoiser)
    head = fit(denoiser, data, head_run.fitting, head_run.out, threshold=threshold, seed=seed, about=about)[
        head_run.fitting.variants[0]
    ]
    labels = trust(head, data, seed=seed)
    if head_run.trials is not None:
        head.defaults = Defaults(ALONE, CAREFUL, 0)  # until dev prompts have chosen others
    by_the_first(lambda: save_head(head, head_run.out))
    by_the_first(lambda: forget_other_head(head_run.out))
    by_the_first(lambda: mark_fitted(head_run.out, name))
    log.info("of the head's correction %.0f %% are trusted (%d held-out labels)", 100 * head.config.trust, labels)
    return head


def forget_other_head(out: Path) -> None:
    """Take away what a head that was fitted in a folder before leaves there beside its save: figures of its cascade."""
    from models.heads.cascade import CASCADE

    shutil.rmtree(out / CASCADE, ignore_errors=True)


def tell_states(data: Data) -> None:
    """Say how many states and positions each task has to fit on."""
    for task in sorted(set(data.train_task)):
        mine = [batch for batch, of in zip(data.train.batches, data.train_task, strict=True) if of == task]
        states, positions = (
            sum(len(one.state_index) for one in mine),
            sum(int(one.state.feasible.sum()) for one in mine),
        )
        log.info("%s: %d states with %d positions to fit the head on", task, states, positions)


def fit_own_cascade(head_run: HeadRun, denoiser: Denoiser, fitting: CascadeFitting, name: str) -> None:
    """Fit the cascade of the head on the denoiser, or read back the one that the run fitted before.

    Args:
        head_run: the run.
        denoiser: the base with its head.
        fitting: of the cascade.
        name: of what was asked for, by which a finished fit is known.
    """
    from models.heads.cascade import CASCADE, load_cascade
    from train.cascade.fit import fit_cascade

    if cascade_done(head_run.out, fitting, name):
        log.info("the cascade is fitted already")
        denoiser.head.cascade = load_cascade(head_run.out / CASCADE, denoiser)
        return
    log.info("fitting the cascade, %g minutes", fitting.minutes)
    log.info(fit_cascade(denoiser, head_run.tasks, fitting, head_run.out, seed=head_run.seed, asked=name))


def settle(head_run: HeadRun, denoiser: Denoiser, trials: Trials) -> str:
    """Choose the settings that the head decodes with by default, and say what was won; writes them and the model card."""
    from train.defaults.model_card import leave, usage_of
    from train.defaults.search import choose_defaults, first_prompts

    how: dict[str, Any] = {"batch_size": head_run.batch_size, "seed": head_run.seed, "run_code": head_run.run_code}
    log.info("trying settings on dev prompts")
    choice = choose_defaults(denoiser, head_run.tasks, trials, head_run.out, **how)
    usage = usage_of(head_run.out, first_prompts(head_run.tasks, seed=head_run.seed), head_run.model)
    return leave(head_run.out, choice, about_of(head_run, denoiser), usage)


def about_of(head_run: HeadRun, denoiser: Denoiser) -> dict[str, str]:
    """What the model card says of how the head was made."""
    from decoding.provenance import environment

    made = environment(device=denoiser.device, seed=head_run.seed)
    fitting, share = head_run.fitting, 100 * denoiser.head.config.trust
    tasks = ", ".join(f"{name} ({run.prompts} prompts, {run.dev_prompts} dev)" for name, run in head_run.tasks.items())
    cascade = (
        "none"
        if head_run.cascade is None
        else f"{head_run.cascade.minutes:g} minutes, {head_run.cascade.blocks} blocks"
    )
    return {
        "base": f"{Path(head_run.base).name} ({denoiser.fingerprint()[:12]})",
        "tasks": tasks,
        "left out": head_run.leave_out or "none",
        "head": f"{fitting.variants[0]}, {fitting.epochs} epochs, {share:.0f} % trusted",
        "cascade": cascade,
        "made by": f"{made['command']}, commit {made['commit']}, seed {head_run.seed}, {made['device']}",
    }


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
    from train.traces.prompts import prompts_of

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

    Args:
        head_run: the run.
        denoiser: the base.
        beam: the look-ahead whose branches are labelled.
        drivers: name -> {policy: NAME, setting: value}.
        name: of the folder and of the bar.
        head: for learned drivers, or None.
        clock: seconds, for the budget.
    """
    from tqdm import tqdm

    from train.traces.collection import collect

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
            stop=None if head_run.budget_hours is None else lambda: clock() > end,
            judged=keep_options,
            progress=lambda count: _advance(bar, count),
        )
    return [head_run.out / name / task for task in head_run.tasks]


def _advance(bar: Any, count: int) -> None:
    bar.update(count)
