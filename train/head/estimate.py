"""What a run will take, measured on a few prompts of every task, and a run cut to the hours there are."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.checkpoints.json_files import read_object
from models.ranks import launched
from train.head.head_run import HeadRun, load_base, quieten, reference_policy
from train.head.settings import TaskRun
from train.tasks import get
from train.traces.drivers import make_drivers

if TYPE_CHECKING:
    from decoding.policies.ete import BeamETE
    from models.denoiser import Denoiser

PROBE_SECONDS = 30.0
SHARE = 0.9  # of the budget that the cut fills; the rest is for what the probe did not see
BUDGET_FILE = "budget.json"
LEAST_PROMPTS = 2  # of the train split: one to fit on and one to choose the weights by


@dataclass(frozen=True)
class Size:
    """How much a collection is.

    Attributes:
        seconds: it takes.
        prompts: decoded.
        states: kept.
        branches: tried, each with a gain label.
        risks: labels of risk: positions of states with a unique answer, judged or held-back branches elsewhere.
        gigabytes: on disk.
    """

    seconds: float = 0.0
    prompts: float = 0.0
    states: float = 0.0
    branches: float = 0.0
    risks: float = 0.0
    gigabytes: float = 0.0

    def times(self, factor: float) -> Size:
        """The same for so many times as many prompts."""
        return Size(*(factor * value for value in vars(self).values()))

    def __add__(self, other: Size) -> Size:
        """Both."""
        return Size(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def __str__(self) -> str:
        """For people."""
        labels = f"{self.states:.0f} states, {self.branches:.0f} gain labels, {self.risks:.0f} risk labels"
        return f"{self.prompts:.0f} prompts, {labels}, {self.gigabytes:.4f} GB, {self.seconds / 3600:.3f} h"


def estimate_run(
    head_run: HeadRun, *, seconds: float = PROBE_SECONDS, clock: Callable[[], float] = time.monotonic
) -> str:
    """Collect a few prompts of every task for about `seconds` and say what the whole run will take.

    Returns:
        A line a task and one for the run: prompts, states, labels, gigabytes and hours of one pass.
    """
    quieten()
    denoiser = load_base(head_run)
    sizes = probe(head_run, denoiser, reference_policy(head_run, denoiser), seconds=seconds, clock=clock)
    lines = [f"{name}: {size}" for name, size in sizes.items()]
    fits = head_run.fitting.seeds * len(head_run.fitting.variants)
    passes = "two passes of this size, the second in states of the head; " if head_run.relabel else ""
    then = f"then {fits} fits of {head_run.fitting.epochs} epochs"
    then += f" and {head_run.cascade.minutes:g} minutes of the cascade" if head_run.cascade is not None else ""
    whole = sum(sizes.values(), Size())
    lines.append(f"collection: {whole} on {denoiser.device}{_peak(denoiser)}; {passes}{then}")
    if head_run.budget_hours is not None:
        share = min(1.0, _factor(head_run, whole))
        lines.append(f"budget: {head_run.budget_hours:g} h take {share:.0%} of the prompts")
    return "\n".join(lines)


def probe(
    head_run: HeadRun, denoiser: Denoiser, beam: BeamETE, *, seconds: float, clock: Callable[[], float] = time.monotonic
) -> dict[str, Size]:
    """The size of the collection of every task, scaled up from twice as many prompts each time while `seconds` last.

    Only the last and largest time counts: it is warm, and its batches are the fullest. Before the first, prompts are read and one
    forward runs, off the clock.

    Args:
        head_run: the run.
        denoiser: the base.
        beam: the look-ahead whose branches are labelled.
        seconds: for all tasks, above 0.
        clock: seconds, for tests.
    """
    sizes = {}
    for name, run in head_run.tasks.items():
        few, taken, measured = len(head_run.drivers) + 1, 0.0, Size()
        _warm_up(head_run, name, _part(run, few), denoiser)
        while True:
            part = _part(run, few)
            began = clock()
            with tempfile.TemporaryDirectory() as folder:
                _collect(replace(head_run, tasks={name: part}, out=Path(folder)), denoiser, beam)
                measured = replace(
                    _size_of(Path(folder)),
                    seconds=float(clock() - began),
                    prompts=float(part.prompts + part.dev_prompts),
                )
            taken += measured.seconds
            if part == run or taken + 2 * measured.seconds > seconds / len(head_run.tasks):
                break
            few *= 2
        sizes[name] = measured.times((run.prompts + run.dev_prompts) / measured.prompts)
    return sizes


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
        whole = sum(probe(head_run, denoiser, beam, seconds=seconds, clock=clock).values(), Size())
        factor = min(1.0, SHARE * _factor(head_run, whole))
        counts = {
            name: [
                min(run.prompts, max(LEAST_PROMPTS, int(run.prompts * factor))),
                max(1, int(run.dev_prompts * factor)),
            ]
            for name, run in head_run.tasks.items()
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


def _warm_up(head_run: HeadRun, name: str, run: TaskRun, denoiser: Denoiser) -> None:
    """Read the prompts of a task once and run one forward on a batch of them."""
    import torch

    from decoding.prompts import read_prompts
    from train.traces.prompts import prompts_of

    task = get(name)
    prompts_of(task, run, "dev", run.dev_prompts, seed=head_run.seed)
    few = prompts_of(task, run, "train", run.prompts, seed=head_run.seed)[: head_run.batch_size]
    batch = read_prompts([example.prompt for example in few], None, denoiser).with_canvas(task.gen_length)
    with torch.inference_mode():
        denoiser(batch.tokens, attention_mask=batch.attention_mask)


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


def _peak(denoiser: Denoiser) -> str:
    """The most memory that a GPU has held so far."""
    if denoiser.device.type != "cuda":
        return ""
    import torch

    return f" (peak memory {torch.cuda.max_memory_allocated(denoiser.device) / 1e9:.1f} GB)"
