"""`python train.py` from base to table: traces, heads, metrics, comparison."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from decoding.arms import BLOCK_LENGTH, Arm, check_arms
from decoding.labelling import Labelling
from decoding.names import POLICIES
from train.command import shipped
from train.contest import Contest, hold, judge
from train.head_settings import CascadeFitting, Fitting, TaskRun, names_of
from train.question import MODEL, check_adapter, check_model
from train.tasks import get, require_permission
from train.tasks.hub import HUB
from train.tasks.text import TEXT

if TYPE_CHECKING:
    from decoding.explore import BeamETE
    from decoding.policy import Policy
    from models.denoiser import Denoiser
    from models.scoring_head import ScoringHead

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A head from base to table; what `train.py` reads from its YAML.

    Attributes:
        model: folder or hub id of the base; None takes the shipped one.
        adapter: folder of a PEFT LoRA adapter that is merged into the base, or None.
        out: folder of the run.
        tasks: what is collected of each task.
        beam: settings of the reference policy `ete`, whose candidates and scores the traces hold.
        drivers: policies that lead through the states: name -> {policy: NAME, setting: value, ...}; `block_length` in place of
            the task's where it divides the canvas.
        relabel: driver-like entries of policy `learned`, run with the first fitted head to label the states it visits itself;
            empty skips that pass.
        labelling: how much is kept and tried of each prompt.
        fitting: how heads are fitted.
        catalogue: arms of the closing comparison; empty skips it.
        num_prompts, num_dev: prompts of each task in the comparison.
        batch_size: canvases in one forward.
        seed: of prompts, draws and the first fit.
        device: where to run; None takes the GPU if there is one.
        dtype: of the base, the same for traces and decoding.
        run_code: let checkers run what the base writes.
        budget_hours: what collection may take; prompts are cut to it beforehand, and no part is begun after it.
        leave_out: names of tasks that the head must not see, with commas between them; recorded beside its figures.
        cascade: how the head's cascade is fitted after it; None for a head without one.
    """

    model: str | None
    out: Path
    tasks: Mapping[str, TaskRun]
    beam: Mapping[str, Any]
    drivers: Mapping[str, Mapping[str, Any]]
    relabel: Mapping[str, Mapping[str, Any]]
    labelling: Labelling
    fitting: Fitting
    catalogue: tuple[Arm, ...]
    num_prompts: int
    num_dev: int
    batch_size: int
    seed: int
    device: str | None
    dtype: str = "float32"
    run_code: bool = False
    adapter: str | None = None
    budget_hours: float | None = None
    leave_out: str | None = None
    cascade: CascadeFitting | None = None

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError("tasks must name at least one task, got none")
        for name, run in self.tasks.items():
            task = get(name)
            require_permission(task, self.run_code)
            if task.make is None and run.prompts_file is None:
                raise ValueError(
                    f"prompts_file of task {name} must be a file or hub, for it has no generator, got none"
                )
            if task.gen_length % (run.block_length or task.block_length):
                raise ValueError(f"block_length must divide gen_length {task.gen_length}, got {run.block_length}")
            if run.prompts_file not in (None, HUB) and not Path(run.prompts_file).is_file():
                raise ValueError(f"prompts_file must be a file, got {run.prompts_file}")
        if not self.drivers:
            raise ValueError("drivers must name at least one policy, got none")
        for name, entry in {**self.drivers, **self.relabel}.items():
            if entry.get("policy") not in POLICIES:
                raise ValueError(f"driver {name} must name its policy, one of {', '.join(POLICIES)}, got {dict(entry)}")
            length = entry.get(BLOCK_LENGTH, 1)
            if not isinstance(length, int) or length < 1:
                raise ValueError(f"block_length of driver {name} must be a whole number of at least 1, got {length!r}")
        for name in ("num_prompts", "num_dev", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.budget_hours is not None and self.budget_hours <= 0:
            raise ValueError(f"budget_hours must be above 0, got {self.budget_hours}")
        if self.cascade is not None and self.fitting.universal:
            raise ValueError("cascade must be left out for a universal head, which is bound to no base, got one")
        if self.catalogue:
            check_arms(self.catalogue)
        if self.model is not None:
            check_model(self.model, "")
        check_adapter(self.adapter)

    @property
    def base(self) -> str:
        """The base that is read."""
        return self.model or str(shipped(MODEL))


def load_base(job: Job) -> Denoiser:
    """The base in the dtype that traces and decoding share."""
    import models

    return models.load(job.base, dtype=job.dtype, device=job.device, adapter=job.adapter)


def run_job(job: Job) -> str:
    """Do everything, going on where a run with the same settings was cut off; returns the tables."""
    from train.fit import fit, prepare

    quieten()
    contest_of(job, None)  # what cannot be compared in the end is refused now
    if job.budget_hours is None:
        require_rows(job)
    denoiser = load_base(job)
    beam = reference_policy(job, denoiser)
    threshold, about = beam.threshold, provenance_of(job, denoiser)
    if job.budget_hours is not None:
        from train.estimate import cut_to_budget

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
        from train.cascade_fit import teach

        cast(Any, denoiser).put_on(heads[job.fitting.variants[0]])
        log.info(teach(denoiser, job.tasks, job.cascade, job.out, seed=job.seed))
    return compare_heads(job)


def provenance_of(job: Job, denoiser: Denoiser) -> dict[str, Any]:
    """What metrics.json says of a fit: the base by name and fingerprint, the tasks it saw, and those left out."""
    base = {"name": Path(job.base).name if Path(job.base).is_dir() else job.base, "fingerprint": denoiser.fingerprint()}
    return {"fitted_on": base, "tasks": list(job.tasks), "left_out": list(names_of(job.leave_out))}


def require_rows(job: Job) -> None:
    """Refuse a file with fewer prompts than a task asks for, before another task is collected.

    Raises:
        ValueError: naming the file, or in it a row that cannot be read.
    """
    from train.fit import prompts_of

    for name, run in job.tasks.items():
        if run.prompts_file is not None:
            for split, count in (("train", run.prompts), ("dev", run.dev_prompts)):
                prompts_of(get(name), run, split, count, seed=job.seed)


def reference_policy(job: Job, denoiser: Denoiser) -> BeamETE:
    """Beam ETE with the job's settings."""
    from decoding.api import make_policy

    return cast("BeamETE", make_policy("ete", job.beam, denoiser))


def quieten() -> None:
    """Leave the terminal to our own lines and bars."""
    from datasets import disable_progress_bars

    disable_progress_bars()
    for name in ("lightning", "lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)


def gather(
    job: Job,
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

    from train.fit import collect

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


def make_drivers(
    entries: Mapping[str, Mapping[str, Any]], denoiser: Denoiser, head: ScoringHead | None
) -> dict[str, Policy]:
    """The policies that a config names; learned ones get the head."""
    if head is not None:
        cast(Any, denoiser).put_on(head)
    own = {name: {k: v for k, v in entry.items() if k != BLOCK_LENGTH} for name, entry in entries.items()}
    return {name: policy_of(entry, denoiser) for name, entry in own.items()}


def policy_of(entry: Mapping[str, Any], denoiser: Denoiser) -> Policy:
    """The policy that one entry names, with its settings."""
    from decoding.api import make_policy

    return make_policy(entry["policy"], {name: value for name, value in entry.items() if name != "policy"}, denoiser)


def compare_heads(job: Job) -> str:
    """The fitted head and its rivals on the same fresh prompts, through the code of `compare.py`."""
    if not job.catalogue:
        return "no arms to compare"
    contest = contest_of(job, str(job.out))
    if contest is None:
        return "no task with a checker to compare on"
    return hold(contest, out=str(job.out), batch_size=job.batch_size, seed=job.seed, device=job.device, dtype=job.dtype)


def contest_of(job: Job, head: str | None) -> Contest | None:
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
