"""`python train.py` from base to table: traces, heads, metrics, comparison."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from decoding.arms import Arm, check_arms
from decoding.labelling import Labelling
from decoding.names import POLICIES
from train.command import shipped
from train.contest import hold, judge
from train.head_settings import Fitting, TaskRun
from train.question import MODEL, check_model
from train.tasks import get

if TYPE_CHECKING:
    from decoding.explore import BeamETE
    from decoding.policy import Policy
    from models.denoiser import Denoiser
    from models.scoring_head import ScoringHead

log = logging.getLogger(__name__)

PROBE_SECONDS = 30.0


@dataclass(frozen=True)
class Job:
    """A head from base to table; what `train.py` reads from its YAML.

    Attributes:
        model: folder or hub id of the base; None takes the shipped one.
        out: folder of the run.
        tasks: what is collected of each task.
        beam: settings of the reference policy `ete`, whose candidates and scores the traces hold.
        drivers: policies that lead through the states: name -> {policy: NAME, setting: value, ...}.
        relabel: driver-like entries of policy `learned`, run with the first fitted head to label the states it visits itself;
            empty skips that pass.
        labelling: how much is kept and tried of each prompt.
        fitting: how heads are fitted.
        catalogue: arms of the closing comparison; empty skips it.
        num_prompts, num_dev: prompts of each task in the comparison.
        batch_size: canvases in one forward.
        seed: of prompts, draws and the first fit.
        device: where to run; None takes the GPU if there is one.
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

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError("tasks must name at least one task, got none")
        for name, run in self.tasks.items():
            task = get(name)
            if task.gen_length % (run.block_length or task.block_length):
                raise ValueError(f"block_length must divide gen_length {task.gen_length}, got {run.block_length}")
            if run.prompts_file is not None and not Path(run.prompts_file).is_file():
                raise ValueError(f"prompts_file must be a file, got {run.prompts_file}")
        if not self.drivers:
            raise ValueError("drivers must name at least one policy, got none")
        for name, entry in {**self.drivers, **self.relabel}.items():
            if entry.get("policy") not in POLICIES:
                raise ValueError(f"driver {name} must name its policy, one of {', '.join(POLICIES)}, got {dict(entry)}")
        for name in ("num_prompts", "num_dev", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.catalogue:
            check_arms(self.catalogue)
        if self.model is not None:
            check_model(self.model, "")

    @property
    def base(self) -> str:
        """The base that is read."""
        return self.model or str(shipped(MODEL))


def load_base(job: Job) -> Denoiser:
    """The base in float32, the dtype that traces and decoding share."""
    import torch

    import models

    return models.load(job.base, dtype=torch.float32, device=job.device)


def run_job(job: Job) -> str:
    """Do everything, going on where a run with the same settings was cut off; returns the tables."""
    from train.fit import fit, prepare

    _quieten()
    denoiser = load_base(job)
    beam = reference_policy(job, denoiser)
    threshold = beam.threshold
    folders = gather(job, denoiser, beam, job.drivers, "traces", None)
    if job.relabel:
        first = replace(job.fitting, variants=job.fitting.variants[:1], seeds=1)
        data = prepare(denoiser, folders, first, threshold=threshold, seed=job.seed)
        head = fit(denoiser, data, first, job.out / "first", threshold=threshold, seed=job.seed)[first.variants[0]]
        folders += gather(job, denoiser, beam, job.relabel, "traces-own", head)
    data = prepare(denoiser, folders, job.fitting, threshold=threshold, seed=job.seed)
    fit(denoiser, data, job.fitting, job.out, threshold=threshold, seed=job.seed)
    return compare_heads(job)


def reference_policy(job: Job, denoiser: Denoiser) -> BeamETE:
    """Beam ETE with the job's settings."""
    from decoding.api import make_policy

    return cast("BeamETE", make_policy("ete", job.beam, denoiser))


def _quieten() -> None:
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
) -> list[Path]:
    """Collect the traces of all tasks with a progress bar; returns one folder for each task."""
    from tqdm import tqdm

    from train.fit import collect

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
            progress=lambda count: _advance(bar, count),
        )
    return [job.out / name / task for task in job.tasks]


def _advance(bar: Any, count: int) -> None:
    bar.update(count)


def make_drivers(
    entries: Mapping[str, Mapping[str, Any]], denoiser: Denoiser, head: ScoringHead | None
) -> dict[str, Policy]:
    """The policies that a config names; learned ones get the head."""
    from decoding.api import make_policy

    if head is not None:
        cast(Any, denoiser).put_on(head)
    return {
        name: make_policy(entry["policy"], {k: v for k, v in entry.items() if k != "policy"}, denoiser)
        for name, entry in entries.items()
    }


def compare_heads(job: Job) -> str:
    """The fitted head and its rivals on the same fresh prompts, through the code of `compare.py`."""
    if not job.catalogue:
        return "no arms to compare"
    contest = judge(
        job.catalogue,
        None,
        ",".join(job.tasks),
        num_prompts=job.num_prompts,
        num_dev=job.num_dev,
        seed=job.seed,
        model=job.base,
        head=str(job.out),
    )
    return hold(contest, out=str(job.out), batch_size=job.batch_size, seed=job.seed, device=job.device)


def foresee(job: Job, *, seconds: float = PROBE_SECONDS, clock: Callable[[], float] = time.monotonic) -> str:
    """Collect a few prompts of every task for about `seconds` and say what the whole run will take.

    Returns:
        A line a task and one for the run: hours, rows and MB.
    """
    from decoding.explore import BeamETE

    _quieten()
    denoiser = load_base(job)
    beam = BeamETE(**job.beam)
    lines, hours, megabytes, rows = [], 0.0, 0.0, 0
    for name, run in job.tasks.items():
        wanted = run.prompts + run.dev_prompts
        taken, done, kept, size = 0.0, 0, 0, 0.0
        with tempfile.TemporaryDirectory() as folder:
            while taken < seconds / len(job.tasks) and done < wanted:
                few = min(max(2, len(job.drivers)), wanted)
                part = replace(
                    job, tasks={name: replace(run, prompts=few, dev_prompts=1)}, out=Path(folder) / str(done)
                )
                began = clock()
                _probe(part, denoiser, beam)
                taken += clock() - began
                done += few + 1
                kept += _rows_in(part.out)
                size += sum(f.stat().st_size for f in part.out.rglob("*.parquet")) / 1e6
        scale = wanted / done
        lines.append(
            f"{name}: {wanted} prompts, {kept * scale:.0f} states, {size * scale:.1f} MB, {taken * scale / 60:.1f} min"
        )
        hours, megabytes, rows = hours + taken * scale / 3600, megabytes + size * scale, rows + round(kept * scale)
    fits = job.fitting.seeds * len(job.fitting.variants)
    lines.append(
        f"collection: {hours:.2f} h, {rows} states, {megabytes:.1f} MB on {denoiser.device}; "
        f"then {fits} fits of {job.fitting.epochs} epochs"
    )
    return "\n".join(lines)


def _probe(job: Job, denoiser: Denoiser, beam: Any) -> None:
    from train.fit import collect

    drivers = make_drivers(job.drivers, denoiser, None)
    collect(
        denoiser,
        job.tasks,
        job.out,
        beam=beam,
        drivers=drivers,
        labelling=job.labelling,
        batch_size=job.batch_size,
        seed=job.seed,
    )


def _rows_in(folder: Path) -> int:
    from pyarrow.parquet import read_metadata

    return sum(read_metadata(file).num_rows for file in folder.rglob("*.parquet"))
