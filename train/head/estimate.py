"""What a run will take, measured on a few prompts of every task, and a run cut to the hours there are."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.checkpoints.json_files import read_object
from models.ranks import launched
from train.head.head_run import HeadRun, load_base, quieten, reference_policy
from train.head.price.amounts import Pace, Size, counted
from train.head.settings import TaskRun
from train.traces.drivers import make_drivers

if TYPE_CHECKING:
    from decoding.policies.ete import BeamETE
    from decoding.policy import Policy
    from models.denoiser import Denoiser

log = logging.getLogger(__name__)

PROBE_SECONDS = 30.0
COUNTED = 0.4  # share of these that forwards and a few decodes may take
SHARE = 0.9  # of the budget that the cut fills; the rest is for what the probe did not see
BUDGET_FILE = "budget.json"
DRAWN = 8  # prompts of a task that a batch is filled with: some tasks take long to draw theirs
LEAST_PROMPTS = 2  # of the train split: one to fit on and one to choose the weights by


def estimate_run(
    head_run: HeadRun, *, seconds: float = PROBE_SECONDS, clock: Callable[[], float] = time.monotonic
) -> str:
    """Say what the whole run will take, from what prompts of every task take in about `seconds`.

    Returns:
        A line a task, and then for collection, fits, trials and comparison, with memory, disk and download.
    """
    from train.head.price.whole_run import Weights, whole_run

    quieten()
    weights = Weights.before(head_run.base)
    if weights.download:
        log.info("%.2f GB of %s are downloaded first", weights.download / 1e9, head_run.base)
    denoiser = load_base(head_run)
    weights = weights.loaded(denoiser)
    beam = reference_policy(head_run, denoiser)
    probed = probe(head_run, denoiser, beam, seconds=seconds, clock=clock)
    lines = [f"{name}: {one.size}{one.said}" for name, one in probed.items()]
    lines += whole_run(head_run, denoiser, {name: (one.size, one.pace) for name, one in probed.items()}, weights)
    if head_run.budget_hours is not None:
        share = min(1.0, _factor(head_run, whole_of(probed)))
        lines.append(f"budget: {head_run.budget_hours:g} h take {share:.0%} of the prompts")
    return "\n".join(lines)


@dataclass(frozen=True)
class Probed:
    """What is known of a task's collection.

    Attributes:
        size: of all of it.
        pace: that it was counted with.
        collected: prompts that were collected and scaled up; 0 where the size is only counted.
    """

    size: Size
    pace: Pace
    collected: int

    @property
    def said(self) -> str:
        """How it is known, for people."""
        if self.collected:
            return f" (as {self.collected} prompts took)"
        return " (counted at one token a round)" if self.pace.guessed else " (counted: at most)"


def whole_of(probed: Mapping[str, Probed]) -> Size:
    """Of all tasks."""
    return sum((one.size for one in probed.values()), Size())


def probe(
    head_run: HeadRun, denoiser: Denoiser, beam: BeamETE, *, seconds: float, clock: Callable[[], float] = time.monotonic
) -> dict[str, Probed]:
    """The size of the collection of every task in about `seconds`, whatever the base.

    It is counted from the pace of forwards and decodes. Where the count says that a few prompts can be collected in the time left,
    they are, twice as many each time, and the last time is scaled up: it is warm, and its batches are the fullest.

    Args:
        head_run: the run.
        denoiser: the base.
        beam: the look-ahead whose branches are labelled.
        seconds: for all tasks, above 0.
        clock: seconds, for tests.
    """
    head_run, probed, share = as_held(head_run), {}, seconds / len(head_run.tasks)
    for name, run in head_run.tasks.items():
        pace = _pace(head_run, name, denoiser, beam, seconds=COUNTED * share, clock=clock)
        size = _counted(head_run, name, pace, run)
        probed[name] = _collected(
            head_run, name, denoiser, beam, Probed(size, pace, 0), left=(1 - COUNTED) * share, clock=clock
        )
    return probed


def as_held(head_run: HeadRun) -> HeadRun:
    """The run with the prompts that there are, where a file holds fewer than are asked for."""
    from train.traces.prompts import held

    return replace(head_run, tasks={name: held(run.task(name), run) for name, run in head_run.tasks.items()})


def _collected(
    head_run: HeadRun,
    name: str,
    denoiser: Denoiser,
    beam: BeamETE,
    known: Probed,
    *,
    left: float,
    clock: Callable[[], float],
) -> Probed:
    """What was counted, or what a few prompts took where they can be collected in the time left."""
    run = head_run.tasks[name]
    few = len(head_run.drivers) + 1
    expected = _counted(head_run, name, known.pace, _part(run, few)).seconds
    while expected < left:
        part = _part(run, few)
        began = clock()
        with tempfile.TemporaryDirectory() as folder:
            _collect(replace(head_run, tasks={name: part}, out=Path(folder)), denoiser, beam)
            prompts, taken = part.prompts + part.dev_prompts, float(clock() - began)
            size = replace(_size_of(Path(folder)), seconds=taken, prompts=float(prompts))
        known = Probed(size.times((run.prompts + run.dev_prompts) / prompts), known.pace, prompts)
        if part == run:
            break
        few, left, expected = 2 * few, left - taken, 2 * taken
    return known


def _counted(head_run: HeadRun, name: str, pace: Pace, run: TaskRun) -> Size:
    counts = {"train": run.prompts, "dev": run.dev_prompts}
    return counted(pace, run.labelling or head_run.labelling, counts, unique=run.task(name).unique_answer)


def cut_to_budget(
    head_run: HeadRun,
    denoiser: Denoiser,
    beam: BeamETE,
    *,
    seconds: float = PROBE_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> HeadRun:
    """The head_run with as many prompts of every task as its hours allow; a run that goes on keeps what it was cut to at first.

    Args:
        head_run: the run, with `budget_hours`.
        denoiser: the base.
        beam: the look-ahead whose branches are labelled.
        seconds: of the probe, above 0.
        clock: seconds, for tests.

    Raises:
        ValueError: if the run that is gone on with was given other hours, tasks or numbers of prompts.
    """
    from decoding.provenance import write_json

    file = head_run.out / BUDGET_FILE
    wanted = {
        "budget_hours": head_run.budget_hours,
        "asked": {name: [run.prompts, run.dev_prompts] for name, run in head_run.tasks.items()},
    }
    if file.is_file():
        counts = _earlier_cut(file, wanted)
    else:
        whole = whole_of(probe(head_run, denoiser, beam, seconds=seconds, clock=clock))
        factor = min(1.0, SHARE * _factor(head_run, whole))
        counts = {
            name: [
                min(run.prompts, max(LEAST_PROMPTS, int(run.prompts * factor))),
                max(1, int(run.dev_prompts * factor)),
            ]
            for name, run in as_held(head_run).tasks.items()
        }
        write_json(file, {**wanted, "cut": counts})
    tasks = {
        name: replace(run, prompts=counts[name][0], dev_prompts=counts[name][1]) for name, run in head_run.tasks.items()
    }
    return replace(head_run, tasks=tasks)


def _earlier_cut(file: Path, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a run was cut to at first, if it was asked for the same."""
    known = read_object(file)
    earlier = {name: known.get(name) for name in wanted}
    cut = known.get("cut")
    if earlier != wanted or not isinstance(cut, dict) or cut.keys() != wanted["asked"].keys():
        raise ValueError(f"{file} must be of a run that was asked for {json.dumps(wanted)}, got {json.dumps(earlier)}")
    return cut


def _factor(head_run: HeadRun, whole: Size) -> float:
    """How often the collection fits into the budget, shared out among the processes of the run."""
    budget = float("inf") if head_run.budget_hours is None else head_run.budget_hours * 3600
    passes = 2 if head_run.relabel else 1
    return budget * launched().size / (whole.seconds * passes) if whole.seconds else float("inf")


def _part(run: TaskRun, few: int) -> TaskRun:
    """A few of the prompts, in the proportion of the run."""
    prompts = min(few, run.prompts)
    return replace(run, prompts=prompts, dev_prompts=max(1, round(run.dev_prompts * prompts / run.prompts)))


def _pace(
    head_run: HeadRun, name: str, denoiser: Denoiser, beam: BeamETE, *, seconds: float, clock: Callable[[], float]
) -> Pace:
    """What a batch of a task's prompts takes; they are read off the clock."""
    from decoding.comparison.arms import BLOCK_LENGTH
    from decoding.prompts import read_prompts
    from train.head.price.pacing import measure_pace
    from train.traces.canvases import without_long
    from train.traces.prompts import prompts_of

    run = head_run.tasks[name]
    task = run.task(name)
    found = prompts_of(task, run, "train", min(run.prompts, head_run.batch_size, DRAWN), seed=head_run.seed)
    some = without_long(denoiser, task, found)
    if not some:
        raise ValueError(f"prompts of task {name} must leave room for {task.gen_length} positions, got none that does")
    filled = [example.prompt for example in islice(cycle(some), head_run.batch_size)]
    batch = read_prompts(filled, None, denoiser).to(denoiser.device).with_canvas(task.gen_length)
    own = task.block_length
    lengths = {key: driver.get(BLOCK_LENGTH, own) for key, driver in head_run.drivers.items()}
    drivers: dict[str, tuple[Policy, int]] = {
        key: (policy, lengths[key] if task.gen_length % lengths[key] == 0 else own)
        for key, policy in make_drivers(head_run.drivers, denoiser, None).items()
    }
    drivers["beam"] = (replace(beam, **run.beam), own)
    return measure_pace(
        denoiser, batch, drivers, gen_length=task.gen_length, threshold=beam.threshold, seconds=seconds, clock=clock
    )


def _collect(head_run: HeadRun, denoiser: Denoiser, beam: Any) -> None:
    from train.traces.collection import collect

    collect(
        denoiser,
        head_run.tasks,
        head_run.out,
        beam=beam,
        drivers=make_drivers(head_run.drivers, denoiser, None),
        labelling=head_run.labelling,
        batch_size=head_run.batch_size,
        seed=head_run.seed,
        run_code=head_run.run_code,
    )


def _size_of(folder: Path) -> Size:
    """States, labels and gigabytes of the parts in a folder."""
    from pyarrow.parquet import read_table

    from decoding.traces.branches import BARE

    files = list(folder.rglob("part-*.parquet"))
    rows: Iterable[dict[str, Any]] = [
        row for file in files for row in read_table(file, columns=["unique_answer", "asked", "branches"]).to_pylist()
    ]
    size = Size(gigabytes=sum(file.stat().st_size for file in files) / 1e9)
    for row in rows:
        judged = sum(branch["harm"] >= 0 for branch in row["branches"])
        risks = sum(row["asked"]) if row["unique_answer"] else judged
        gains = sum(branch["kind"] != BARE and branch["position"] >= 0 for branch in row["branches"])
        size += Size(states=1.0, branches=float(gains), risks=float(risks))
    return size
