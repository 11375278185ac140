"""One task of a comparison: which cells run on which model, over which prompts, and where their figures are kept."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from decoding import provenance
from decoding.comparison import curves
from decoding.comparison.arms import REFERENCE, Arm, Cell
from decoding.comparison.curves import Array, Curve
from decoding.comparison.problems import Check, Problems, Split
from decoding.comparison.records.ledger import Ledger
from decoding.comparison.risk_control import Outcomes, RiskControl, TestedDial, fixed_sequence
from decoding.comparison.runs import Job, run_cells
from decoding.policy_by_name import make_policy
from models.denoiser import Denoiser

logger = logging.getLogger(__name__)

BATCH_SIZE = {"cpu": 16}
LARGE_BATCH = 512  # on any other device


@dataclass(frozen=True)
class Runner:
    """Runs cells on one task and keeps their figures.

    Args:
        denoiser: the model, with the scoring head of learned arms where it has one.
        problems: the prompts.
        check: judges a text.
        ledger: where the figures go.
        heads: arm -> the model with that arm's own head.
        fingerprints: of the heads, by arm; "" is the one on `denoiser`.
        batch_size: prompts at a time.
        seed: of random policies and resamples.
        progress: show a bar.
    """

    denoiser: Denoiser
    problems: Problems
    check: Check
    ledger: Ledger
    heads: Mapping[str, Denoiser]
    fingerprints: Mapping[str, str]
    batch_size: int
    seed: int
    progress: bool

    def denoiser_of(self, arm: str) -> Denoiser:
        """The model that an arm runs on."""
        return self.heads.get(arm, self.denoiser)

    def cells_of(self, arm: Arm) -> tuple[Cell, ...]:
        """The cells of an arm, those of a learned arm bound to the weights of its head."""
        if arm.needs_head and self.denoiser_of(arm.name).head is None:
            raise ValueError(f"arm {arm.name} must have a model loaded with head=FOLDER, got one without a head")
        name = self.fingerprints[arm.name if arm.name in self.heads else ""] if arm.needs_head else None
        return tuple(replace(cell, head=name) for cell in arm.cells)

    def job(self, cell: Cell) -> Job:
        """A cell with its policy and the model that it runs on."""
        denoiser = self.denoiser_of(cell.arm)
        return cell, make_policy(cell.policy, cell.policy_settings, denoiser, self.problems.task), denoiser

    def run(self, arms: Sequence[Arm], split: Split) -> None:
        """Run every cell of the arms that has not run yet."""
        jobs = [self.job(cell) for cell in {c.key: c for arm in arms for c in self.cells_of(arm)}.values()]
        run_cells(
            self.ledger,
            self.problems,
            split,
            jobs,
            self.check,
            batch_size=self.batch_size,
            seed=self.seed,
            progress=self.progress,
        )

    def weights(self, split: Split) -> Array:
        """Resamples of the prompts of a split, the same for every arm."""
        return curves.resample(len(self.problems.split(split)), seed=2 * self.seed + (split == "test"))

    def curve(self, arm: Arm, split: Split, weights: Array) -> Curve:
        """The curve of an arm that has run."""
        tables = [self.ledger.table(split, cell) for cell in self.cells_of(arm)]
        right, rounds, forwards, tokens = (
            np.stack([table[name] for table in tables])
            for name in ("right", "rounds", "sequence_forwards", "new_tokens")
        )
        return Curve.of(weights, right=right, rounds=rounds, forwards=forwards, tokens=tokens)


def make_runner(
    denoiser: Denoiser,
    problems: Problems,
    check: Check,
    *,
    out: Path | None,
    heads: Mapping[str, Denoiser] | None,
    batch_size: int | None,
    seed: int,
    progress: bool,
) -> Runner:
    """Open the ledger of a task; its header holds all that must not change between two calls.

    Args:
        denoiser: the model, with the scoring head of learned arms.
        problems, check: the prompts of the task and its checker.
        out: folder of the ledger; None keeps it in memory.
        heads: arm -> the model with that arm's own head.
        batch_size: prompts at a time, at least 1; None for the device's default.
        seed: of draws and resamples.
        progress: show a bar.
    """
    size = batch_size or BATCH_SIZE.get(denoiser.device.type, LARGE_BATCH)
    header = {
        "task": problems.task,
        "model": denoiser.fingerprint(),
        "dtype": provenance.dtype_name(denoiser),
        "prompts": problems.fingerprint,
        "lengths": [problems.gen_length, problems.block_length],
        "temperature": problems.temperature,
        "use_cache": problems.use_cache,
        "judge": problems.judge,
        "products": torch.get_float32_matmul_precision(),
        "engine": None if denoiser.engine is None else type(denoiser.engine).__name__,
        "batch_size": size,
        "seed": seed,
        "device": provenance.device_name(denoiser.device),
        "code": provenance.code(),
    }
    sizes = {"dev": len(problems.dev), "test": len(problems.test)}
    ledger = Ledger(None if out is None else out / f"{problems.task}.jsonl", header, sizes=sizes)
    models = {"": denoiser, **(heads or {})}
    fingerprints = {
        name: provenance.head_fingerprint(model.head) for name, model in models.items() if model.head is not None
    }
    return Runner(denoiser, problems, check, ledger, heads or {}, fingerprints, size, seed, progress)


def refuse_settings(
    arms: Sequence[Arm], task: str, denoiser: Denoiser, heads: Mapping[str, Denoiser], *, points: int, seed: int
) -> None:
    """Make every policy of the arms on a task, so that what one of them refuses is refused before any has run.

    Args:
        arms: with their own heads in `heads`.
        task: whose settings.
        denoiser: with the head of all other arms.
        heads: arm -> the model with that arm's own head.
        points, seed: of every tuning space, those that `tune` draws with this seed.

    Raises:
        ValueError: for a setting out of range, or one that a head is not made for.
    """
    for arm in (full.on(task) for full in arms):
        for cell in itertools.chain(*(a.cells for a in arm.draws(points, seed=seed) or (replace(arm, tune={}),))):
            try:
                make_policy(cell.policy, cell.policy_settings, heads.get(arm.name, denoiser))
            except ValueError as error:
                raise ValueError(f"{error}, in arm {arm.name}") from error


def control_dial(
    runner: Runner, arm: Arm, control: RiskControl, *, checked: bool = True, split: Split = "dev"
) -> list[TestedDial]:
    """Test the dial of an arm against the reference, in the order of its values up to the first that fails.

    Args:
        runner: with the calibration prompts.
        arm: its values from the careful end.
        control: what is promised.
        checked: whether the answers are judged; else texts are compared.
        split: where the calibration prompts are.
    """

    def outcomes(one: Arm) -> Outcomes:
        runner.run([one], split)
        (cell,) = runner.cells_of(one)
        table = runner.ledger.table(split, cell)
        return Outcomes(table["right"], table["answer"], table["rounds"])

    careful = outcomes(Arm(REFERENCE, "headless", REFERENCE))
    return fixed_sequence(
        arm.values,
        lambda value: control.test(value, careful, outcomes(replace(arm, values=(value,))), checked=checked),
    )


def tune(runner: Runner, arm: Arm, count: int) -> Arm:
    """The arm at the best of `count` random points of its tuning space: fewest rounds at reference on the dev split.

    Where no setting of the dial reaches the reference at any point, the most accurate point is taken.
    """
    if not arm.tune:
        return arm
    drawn = arm.draws(count, seed=runner.seed)
    reference = Arm(REFERENCE, "headless", REFERENCE)
    runner.run([reference, *drawn], "dev")
    once = curves.resample(len(runner.problems.dev), resamples=0)
    accuracy = runner.curve(reference, "dev", once).accuracy[:, 0]

    def merit(point: Arm) -> tuple[float, float]:
        curve = runner.curve(point, "dev", once)
        rounds = curves.pick(curve.rounds, curves.choose_dial(curve, accuracy))[0]
        return (float("inf") if np.isnan(rounds) else float(rounds), -float(curve.accuracy.max()))

    chosen = min(drawn, key=merit)
    logger.info("%s: %s tuned to %s", runner.problems.task, arm.name, chosen.settings)
    return chosen
