"""A decoder against the clock: prompts in batches, whole calls of `generate`, captures not counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from decoding.api import generate
from decoding.comparison import curves
from decoding.comparison.arms import BLOCK_LENGTH, USE_CACHE, Cell
from decoding.comparison.problems import CheckedProblems
from decoding.generation import Generation
from decoding.policy import Policy
from decoding.policy_by_name import make_policy
from models.denoiser import Denoiser
from models.devices import now
from train.clock.store import Row
from train.clock.turns import Deadline

WARM_BATCHES, WARM_PROMPTS = 3, 12  # decoded before the clock starts, whichever are more prompts


@dataclass(frozen=True)
class Subject:
    """What is clocked: a decoder on the prompts of a task.

    Attributes:
        denoiser: the model.
        cell: its settings.
        policy: made of them.
        checked: the prompts of the task, and what judges the answers.
    """

    denoiser: Denoiser
    cell: Cell
    policy: Policy
    checked: CheckedProblems

    @staticmethod
    def of(denoiser: Denoiser, cell: Cell, checked: CheckedProblems) -> Subject:
        """The subject of a cell."""
        policy = make_policy(cell.policy, cell.policy_settings, denoiser, checked.problems.task)
        return Subject(denoiser, cell, policy, checked)

    def generate(self, prompts: Sequence[str]) -> Generation:
        """Decode one batch."""
        problems, settings = self.checked.problems, self.cell.settings
        return generate(
            self.denoiser,
            list(prompts),
            self.policy,
            gen_length=problems.gen_length,
            block_length=settings.get(BLOCK_LENGTH) or problems.block_length,
            use_cache=settings.get(USE_CACHE, problems.use_cache),
        )


@dataclass(frozen=True)
class Decoded:
    """Prompts that were decoded in batches.

    Attributes:
        right: of each prompt.
        rounds, sequence_forwards, looks: means over prompts.
        nfe: rounds of all batches, each as many as its slowest row needs.
        seconds: of each batch, without its captures.
        capturing: seconds that graphs took to be captured meanwhile.
        fallbacks: decodes and calls of the engine that ran plainly meanwhile.
    """

    right: tuple[bool, ...]
    rounds: float
    sequence_forwards: float
    looks: float
    nfe: int
    seconds: tuple[float, ...]
    capturing: float
    fallbacks: int

    @property
    def figures(self) -> Row:
        """Accuracy with its interval, and what a prompt and a round cost."""
        n = len(self.right)
        accuracy = curves.interval(curves.resample(n) @ np.array(self.right, dtype=float))
        means = {name: getattr(self, name) for name in ("rounds", "sequence_forwards", "looks")}
        return {"n": n, "accuracy": accuracy and asdict(accuracy), **means, "fallbacks": self.fallbacks}

    @property
    def times(self) -> Row:
        """Milliseconds, and what they are made of."""
        total = sum(self.seconds)
        return {
            "ms": 1e3 * total / len(self.right),
            "ms_a_round": 1e3 * total / self.nfe,
            "batched_rounds": self.nfe,
            "capturing_seconds": self.capturing,
            "seconds": list(self.seconds),
        }


def decode(subject: Subject, prompts: Sequence[str], size: int, deadline: Deadline) -> Decoded:
    """Decode prompts in batches.

    Args:
        subject: the decoder.
        prompts: in the order decoded.
        size: prompts of a batch.
        deadline: looked up before every batch.

    Raises:
        OutOfTime: where it is over.
    """
    engine, device = getattr(subject.denoiser, "engine", None), subject.denoiser.device
    fallbacks = 0 if engine is None else engine.fallbacks
    right: list[bool] = []
    seconds: list[float] = []
    made: list[Generation] = []
    captured = _captured(engine)
    for low in range(0, len(prompts), size):
        deadline.check()
        some, before, began = prompts[low : low + size], _captured(engine), now(device)
        made.append(subject.generate(some))
        seconds.append(now(device) - began - (_captured(engine) - before))
        right += [subject.checked.check(prompt, text) for prompt, text in zip(some, made[-1].text, strict=True)]
    means = {
        name: sum(int(getattr(one, name).sum()) for one in made) / len(prompts)
        for name in ("rounds", "sequence_forwards", "looks")
    }
    return Decoded(
        tuple(map(bool, right)),
        **means,
        nfe=sum(one.nfe for one in made),
        seconds=tuple(seconds),
        capturing=_captured(engine) - captured,
        fallbacks=0 if engine is None else engine.fallbacks - fallbacks,
    )


def clocked(subject: Subject, prompts: Sequence[str], size: int, *, repeats: int, deadline: Deadline) -> Row:
    """The figures of a decoder that is warm: the best of some runs, and the seconds of each.

    Args:
        subject: the decoder.
        prompts: that are clocked.
        size: prompts of a batch.
        repeats: runs, the same for all that are compared.
        deadline: looked up before every batch.

    Raises:
        OutOfTime: where it is over.
    """
    began = now(subject.denoiser.device)
    warm = decode(subject, prompts[-max(WARM_BATCHES * size, WARM_PROMPTS) :], size, deadline)
    warming = now(subject.denoiser.device) - began
    runs = [decode(subject, prompts, size, deadline) for _ in range(repeats)]
    best = min(runs, key=lambda run: sum(run.seconds))
    warmth = {"warm_seconds": warming, "warm_capturing_seconds": warm.capturing}
    totals = {"repeats": repeats, "run_seconds": [sum(run.seconds) for run in runs]}
    return {**best.figures, **best.times, **totals, **warmth}


def _captured(engine: Any) -> float:
    """Seconds that captures have taken so far."""
    return 0.0 if engine is None else float(engine.graphs.seconds)
