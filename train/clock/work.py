"""The work on one task: the reference, the dial of every arm, and the clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import models
from decoding import provenance
from decoding.comparison.arms import REFERENCE, Arm, Cell
from decoding.comparison.curves import SLACK
from decoding.comparison.runner import refuse_settings
from models.denoiser import Denoiser
from train.clock.call import Base, ClockCall
from train.clock.decodes import Subject, clocked, decode
from train.clock.dial import boldest, careful_first
from train.clock.store import Results, Row
from train.clock.turns import Deadline, claim
from train.tasks import Task
from train.tasks.problems import kept_problems, leave_out_long

Say = Callable[[str], None]


@dataclass(frozen=True)
class Clockwork:
    """One process of a call.

    Attributes:
        call: what is clocked.
        out: folder with a folder for each task.
        prompts: folder of the prompts.
        device: where to run.
        deadline: when to stop.
        say: told of every result.
        models: those loaded so far.
    """

    call: ClockCall
    out: Path
    prompts: Path
    device: str | None
    deadline: Deadline
    say: Say
    models: dict[Base, Denoiser] = field(default_factory=dict)

    def judge(self) -> None:
        """Load every model, and refuse what its head or an earlier call does not go with.

        Raises:
            ValueError: in one sentence.
        """
        for task in self.call.tasks:
            base = self.call.bases[task.name]
            denoiser = self.model_of(base)
            refuse_settings(self.call.arms, task.name, denoiser, {}, points=0, seed=self.call.how.seed)
            results = Results.open(self.out / task.name, self.call.how, base)
            results.stand_on(place_of(denoiser), results.environment)

    def model_of(self, base: Base) -> Denoiser:
        """A base with its head, loaded once."""
        if base not in self.models:
            how: dict[str, Any] = {"dtype": self.call.how.dtype, "engine": self.call.how.engine, "device": self.device}
            self.models[base] = models.load(base.model, head=base.head, **how)
        return self.models[base]

    def run(self) -> None:
        """Take the tasks in turns, the arms of the first pass on all of them before any other; those that others hold are theirs.

        Raises:
            OutOfTime: where the time is over.
        """
        left: set[str] = set()
        for arms in self.call.passes:
            for task in self.call.tasks:
                with claim(self.out / task.name) as mine:
                    if mine:
                        self.on(task).run(arms)
                    elif task.name not in left:
                        left.add(task.name)
                        self.say(f"left to another process: {task.name}")

    def on(self, task: Task) -> TaskWork:
        """The work on a task whose folder this process holds."""
        how, base = self.call.how, self.call.bases[task.name]
        denoiser, results = self.model_of(base), Results.open(self.out / task.name, how, base)
        checked, _ = leave_out_long(kept_problems(task, self.prompts, **how.drawn), denoiser)
        place = {**place_of(denoiser), "prompts": checked.problems.fingerprint, "judge": checked.problems.judge}
        results.stand_on(place, provenance.environment(device=denoiser.device, seed=how.seed))
        subject = Subject.of(denoiser, Arm(REFERENCE, "headless", REFERENCE).cells[0], checked)
        return TaskWork(subject, results, self.call, self.deadline, self.say)


def place_of(denoiser: Denoiser) -> Row:
    """What times depend on beside the call: device, code, libraries and weights."""
    return {
        "device": provenance.device_name(denoiser.device),
        "torch": provenance.installed("torch"),
        "engine": "plain" if denoiser.engine is None else "graphs",
        "dtype": provenance.dtype_name(denoiser),
        "products": torch.get_float32_matmul_precision(),
        "code": provenance.code(),
        **provenance.weights_of(denoiser),
    }


@dataclass(frozen=True)
class TaskWork:
    """The work on one task.

    Attributes:
        reference: one token a round, with the prompts and the model.
        results: what is known; kept as each result ends.
        call: all arms and sizes.
        deadline: when to stop.
        say: told of every result.
    """

    reference: Subject
    results: Results
    call: ClockCall
    deadline: Deadline
    say: Say

    def run(self, arms: Sequence[Arm]) -> None:
        """Choose the dial of each arm and clock it there; then the reference in batches, once."""
        for arm in (full.on(self.task) for full in arms):
            cell = self.choose(arm)
            if cell is not None:
                for size in self.call.how.sizes:
                    self.clock(cell, size, repeats=self.call.how.repeats)
        self.clock(self.reference.cell, self.call.how.batch_size, repeats=1)

    @property
    def task(self) -> str:
        """Its name."""
        return self.reference.checked.problems.task

    def choose(self, arm: Arm) -> Cell | None:
        """The boldest setting of an arm that keeps the accuracy of the reference but the slack on the dev prompts."""
        least = self.dev_accuracy(self.reference.cell) - self.call.how.slack - SLACK
        cells = careful_first(arm)
        cell = boldest(cells, lambda one: self.dev_accuracy(one) >= least, all_of_them=self.call.all_dials)
        said = {"kind": arm.kind, "policy": arm.policy, "dial": arm.dial}
        at: Row = {"key": None, "value": None, "settings": arm.settings}
        if cell is not None:
            at = {"key": cell.key, "value": cell.dial, "settings": dict(cell.settings)}
        if self.results.chosen.get(arm.name) != said | at:
            self.results.chosen[arm.name] = said | at
            self.results.keep()
        return cell

    def dev_accuracy(self, cell: Cell) -> float:
        """Accuracy of a cell on the dev prompts, decoded unless it is known."""
        if cell.key not in self.results.dev:
            prompts = self.reference.checked.problems.dev
            made = decode(self.subject(cell), prompts, self.call.how.batch_size, self.deadline)
            took, right = sum(made.seconds) + made.capturing, sum(made.right) / len(made.right)
            self.results.dev[cell.key] = {"arm": cell.arm, "value": cell.dial, **made.figures, "cold_seconds": took}
            self.results.keep()
            self.say(f"{self.task}, dev prompts: {cell.label} {right:.3f} in {took:.0f} s")
        return float(self.results.dev[cell.key]["accuracy"]["estimate"])

    def clock(self, cell: Cell, size: int, *, repeats: int) -> None:
        """Clock a cell at a batch size, unless that is known."""
        key = f"{cell.key} {size}"
        if key in self.results.clocked:
            return
        prompts = self.reference.checked.problems.test[: self.call.how.prompts_at(size)]
        row = clocked(self.subject(cell), prompts, size, repeats=repeats, deadline=self.deadline)
        self.results.clocked[key] = {"arm": cell.arm, "value": cell.dial, "batch": size, **row}
        self.results.keep()
        self.say(
            f"{self.task}, batch {size}: {cell.label} {row['ms']:.2f} ms a prompt, warm in {row['warm_seconds']:.0f} s"
        )

    def subject(self, cell: Cell) -> Subject:
        """A cell on the same model and prompts."""
        return Subject.of(self.reference.denoiser, cell, self.reference.checked)
