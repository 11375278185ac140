"""Paired comparison of decoders: the same prompts through every arm, judged by accuracy against rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from decoding.comparison.arms import REFERENCE, Arm, check_arms
from decoding.comparison.parity import parity_study
from decoding.comparison.problems import Check, Problems, Split
from decoding.comparison.records.record import Records
from decoding.comparison.results import Row, calibration_rows, curve_rows, measure_arms, pair_rows, result_rows
from decoding.comparison.risk_control import RiskControl
from decoding.comparison.runner import Runner, make_runner, tune
from decoding.comparison.verdicts import judged_by_agreement, verdicts
from decoding.files.folder_lock import hold_folder
from decoding.provenance import write_json
from models.denoiser import Denoiser
from models.ranks import find_ranks


@dataclass(frozen=True)
class Comparison:
    """What `comparison.json` holds: lists of rows, every estimate with an interval as {estimate, low, high}."""

    results: list[Row] = field(default_factory=list)
    curves: list[Row] = field(default_factory=list)
    pairs: list[Row] = field(default_factory=list)
    calibration: list[Row] = field(default_factory=list)
    parity: list[Row] = field(default_factory=list)
    verdicts: list[Row] = field(default_factory=list)

    def __add__(self, other: Comparison) -> Comparison:
        """Both, one after the other."""
        return Comparison(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def save(self, path: Path, environment: Mapping[str, Any]) -> None:
        """Write everything as JSON, aside and renamed; of several processes the first does so."""
        if find_ranks().first:
            write_json(path, {**asdict(self), "environment": dict(environment)}, allow_nan=False)


def compare(
    denoiser: Denoiser,
    arms: Sequence[Arm],
    problems: Problems,
    check: Check,
    *,
    out: Path | None = None,
    heads: Mapping[str, Denoiser] | None = None,
    tuning: int = 0,
    parity: int = 0,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = True,
    control: RiskControl | None = None,
    records: Records | None = None,
) -> Comparison:
    """Run the arms over the prompts of one task and compare them.

    Args:
        denoiser: the model, with the scoring head of learned arms.
        arms: what is compared; `sequential`, the reference, among them, but in a parity study with a checker.
        problems: the prompts of the task.
        check: (prompt, text up to the first EOS) -> right.
        out: folder of the lines of every run, which a later call with the same settings goes on with; None keeps nothing.
        heads: arm -> the model with that arm's own head.
        tuning: random points tried on the dev split for every arm with a tuning space; 0 leaves its settings as they are.
        parity: if above 0, a parity study in place of the curves, with so many points searched on the dev split.
        batch_size: prompts at a time; by default 16 on the CPU, 512 elsewhere.
        seed: of random policies, tuning and resamples.
        progress: show a bar.
        control: chooses dials on the dev split by this promise in place of the point estimate; then nothing is tuned there.
        records: keeps texts and rounds at the settings shown; None keeps none.

    Raises:
        ValueError: for arms or settings that contradict each other, lines in `out` that belong to other settings, or an `out`
            that another process writes to.
    """
    check_arms(arms, reference=not parity or not problems.checked)
    problems.require_prompts("test")
    arms = [arm.on(problems.task) for arm in arms]
    with nullcontext() if out is None else hold_folder(out):
        runner = make_runner(
            denoiser, problems, check, out=out, heads=heads, batch_size=batch_size, seed=seed, progress=progress
        )
        return _parity(runner, arms, parity) if parity else _curves(runner, arms, tuning, control, records)


def _parity(runner: Runner, arms: Sequence[Arm], points: int) -> Comparison:
    _agree(runner, arms, "dev", "test")
    study = parity_study(runner, [arm for arm in arms if arm.name != REFERENCE], points)
    said = judged_by_agreement(runner)
    return Comparison(results=study.results, pairs=study.pairs, parity=[study.parity], verdicts=said)


def _curves(
    runner: Runner, arms: Sequence[Arm], tuning: int, control: RiskControl | None, records: Records | None
) -> Comparison:
    _agree(runner, arms, "dev")
    arms = [tune(runner, arm, tuning) if tuning else replace(arm, tune={}) for arm in arms]
    runner.run(arms, "dev")
    runner.run(arms, "test")
    measured = measure_arms(runner, arms, control)
    if records is not None:
        records.add(runner, [(item.arm, item.cell) for item in measured])
    return Comparison(
        results=result_rows(runner, [(item.arm, cell) for item in measured for cell in item.cells], ["dev", "test"]),
        curves=curve_rows(runner, measured),
        pairs=pair_rows(runner, measured),
        calibration=calibration_rows(runner, measured),
        verdicts=verdicts(runner, measured),
    )


def _agree(runner: Runner, arms: Sequence[Arm], *splits: Split) -> None:
    """Where there is no checker, judge every text by that of the reference, which runs first."""
    if runner.problems.checked:
        return
    reference = next(arm for arm in arms if arm.name == REFERENCE)
    for split in splits:
        runner.run([reference], split)
    runner.ledger.agree_with = runner.cells_of(reference)[0].key
