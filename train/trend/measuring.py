"""What the trend stores of a base: figures of its comparison and of its fits, and what its rounds cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from decoding.comparison.arms import REFERENCE, Arm, Cell
from train.head.operations import base_round, cascade_round, shape_of
from train.tasks import get

if TYPE_CHECKING:
    from models.denoiser import Denoiser

Row = dict[str, Any]
REPEATS = 3
LEADS = 0.9  # threshold of the rule that leads while rounds are timed


@dataclass(frozen=True)
class Measuring:
    """A point of a base that is measured.

    Attributes:
        name, point: of the base, and number of the point of its training.
        model, folder: of the weights; of head and comparison.
        tasks: that are measured.
        blocks: that the cascade runs again.
        prompts: decoded one by one against the clock; with none nothing is timed.
        dtype: of the weights.
        seed, device: of the prompts; where to run.
    """

    name: str
    point: int
    model: Path
    folder: Path
    tasks: tuple[str, ...]
    blocks: int
    prompts: int
    dtype: str
    seed: int
    device: str | None


def record(
    about: Measuring,
    catalogue: Sequence[Arm],
    timed: Mapping[str, Sequence[str]],
    training: Mapping[str, Any],
    settings: Mapping[str, Any],
    file: Path,
) -> None:
    """Measure what is left to measure of a point and write the result.

    Args:
        about: the point.
        catalogue: arms of its comparison.
        timed: what the results call it -> arms, the best of which is timed.
        training: settings of the base's training.
        settings: of the measurement, which a later call is held against.
        file: the result.
    """
    import models
    from decoding.comparison.speed import engine_figures
    from decoding.provenance import dtype_name, environment, write_json
    from train.trend.stages import TRAINED
    from train.trend.stored import SETTINGS

    denoiser = models.load(about.model, head=about.folder / "head", device=about.device, dtype=about.dtype)
    comparison = read(about.folder / "compare" / "comparison.json")
    head = next(iter(read(about.folder / "head" / "metrics.json")["variants"].values()))[0]
    cascade = read(about.folder / "head" / "cascade" / "metrics.json")
    config = read(about.model / "config.json")
    trained = read(about.folder.parent / "base" / TRAINED)
    found: Row = {
        "base": about.name,
        "point": about.point,
        "share_of_training": training["points"][about.point - 1],
        **trained,
        "parameters": sum(p.numel() for p in denoiser.model.parameters()),
        "layers": len(denoiser.blocks),
        "blocks_of_a_look": about.blocks,
        "dtype": dtype_name(denoiser).removeprefix("torch."),
        "look_by_count": look_by_count(config, about),
        "cascade_steps": cascade["steps"],
        "tasks": {},
    }
    for task in about.tasks:
        rows = {name: best_of(comparison, task, arms) for name, arms in timed.items()}
        found["tasks"][task] = {
            "reference": reference_of(comparison, task),
            "arms": {row["arm"]: row for row in comparison["curves"] if row["task"] == task},
            "cells": cells_on(comparison, task),
            "best": rows,
            "headroom": {name: head[task]["choice"].get(name) for name in ("oracle_gain", "regret", "regret_beam")},
            "calibration_error": head[task]["risk"].get("calibration_error"),
            "explained": cascade["tasks"][task].get("explained"),
            "look_ms": look_ms(denoiser, task, seed=about.seed) if about.prompts else {},
            "seconds_a_prompt": seconds_a_prompt(denoiser, task, catalogue, rows, about) if about.prompts else {},
        }
    found["engine"] = None if denoiser.engine is None else engine_figures(denoiser)  # of what was timed
    origin = environment(device=denoiser.device, seed=about.seed)
    write_json(file, {**found, "training": dict(training), SETTINGS: dict(settings), "environment": origin})


def read(file: Path) -> Any:
    """A JSON file."""
    return json.loads(file.read_text(encoding="utf-8"))


def reference_of(comparison: Mapping[str, Any], task: str) -> Row:
    """Accuracy and rounds of one token a round on the test prompts."""
    rows = comparison["results"]
    of = {"task": task, "arm": REFERENCE, "split": "test"}
    row = next(row for row in rows if of.items() <= row.items())
    return {name: row[name] for name in ("accuracy", "rounds", "n")}


def cells_on(comparison: Mapping[str, Any], task: str) -> list[Row]:
    """What every arm reached at every dial on the test prompts."""
    kept = ("arm", "dial", "n", "accuracy", "rounds", "sequence_forwards")
    rows = comparison["results"]
    return [{name: row[name] for name in kept} for row in rows if (row["task"], row["split"]) == (task, "test")]


def best_of(comparison: Mapping[str, Any], task: str, arms: Sequence[str]) -> Row | None:
    """The arm with the fewest rounds on the dev prompts at its setting chosen there, with its standing on the test prompts."""
    standing = {row["arm"]: row for row in comparison["curves"] if row["task"] == task and row["arm"] in arms}
    rounds: dict[str, float] = {}
    for row in comparison["results"]:
        chosen = standing.get(row["arm"], {}).get("dial_chosen")
        if chosen is not None and (row["task"], row["split"], row["dial"]) == (task, "dev", chosen):
            rounds[row["arm"]] = row["rounds"]["estimate"]
    if not rounds:
        return None
    name = min(rounds, key=lambda arm: rounds[arm])
    row = standing[name]
    kept = ("arm", "dial_chosen", "rounds_at_reference", "accuracy_difference", "null_share", "holds")
    return {key: row[key] for key in kept}


def look_by_count(config: Mapping[str, Any], about: Measuring) -> dict[str, Any]:
    """What a look adds to a round's operations and weights, in per cent, with a cache and without, on each task's canvas."""
    shape = shape_of(config)
    found = {}
    for task in about.tasks:
        kind = get(task)
        length = len(next(iter(kind.generate("test", seed=about.seed))).prompt) + kind.gen_length
        rows = kind.block_length
        look = cascade_round(shape, blocks=about.blocks, rank=32, context=length, rows=rows)
        computed = {"cached": rows, "uncached": length}
        found[task] = {
            mode: look.share(base_round(shape, computed=many, context=length, rows=rows))
            for mode, many in computed.items()
        }
    return found


def look_ms(denoiser: Denoiser, task: str, *, seed: int, batch_size: int = 8) -> dict[str, float]:
    """Milliseconds of a round by itself, with the head, and with the head and one look, all in the same states.

    Args:
        denoiser: with its head.
        task: whose prompts are decoded.
        seed: of the prompts.
        batch_size: prompts decoded together.
    """
    from decoding import generate
    from decoding.policies.threshold import Threshold
    from decoding.policy_by_name import make_policy
    from train.head_cost import Beside

    kind, leads = get(task), Threshold(LEADS)
    prompts = [example.prompt for example in islice(kind.generate("test", seed=seed), batch_size)]
    asked = {name: make_policy("learned", {"looks": looks}, denoiser) for name, looks in (("head", 0), ("look", 1))}
    rules = {"plain": Beside(leads, leads)} | {name: Beside(leads, policy) for name, policy in asked.items()}
    times: dict[str, list[float]] = {name: [] for name in rules}
    lengths: dict[str, Any] = {"gen_length": kind.gen_length, "block_length": kind.block_length}
    for _ in range(REPEATS + 1):  # the first warms up
        for name, rule in rules.items():
            made = generate(denoiser, prompts, rule, **lengths)
            times[name].append(1e3 * made.seconds / made.nfe)
    found = {name: median(some[1:]) for name, some in times.items()}
    return found | {"share_of_a_look": (found["look"] - found["head"]) / found["plain"]}


def seconds_a_prompt(
    denoiser: Denoiser, task: str, catalogue: Sequence[Arm], best: Mapping[str, Row | None], about: Measuring
) -> dict[str, Any]:
    """Seconds of a prompt decoded alone by the best arm of each kind at its chosen dial, warm, the better of two passes in turns.

    Args:
        denoiser: with its head.
        task: whose prompts are decoded.
        catalogue: the arms.
        best: kind -> arm and dial, or None.
        about: how many prompts.
    """
    from decoding import generate
    from decoding.policy_by_name import make_policy

    kind = get(task)
    prompts = [example.prompt for example in islice(kind.generate("test", seed=about.seed), about.prompts)]
    cells = {name: cell_of(catalogue, task, row) for name, row in best.items() if row is not None}
    rules = {name: make_policy(cell.policy, cell.policy_settings, denoiser) for name, cell in cells.items()}
    passes: dict[str, list[float]] = {name: [] for name in rules}
    lengths: dict[str, Any] = {"gen_length": kind.gen_length, "block_length": kind.block_length}
    for turn in range(3):
        for name, rule in rules.items():
            few = prompts if turn else prompts[:2]
            passes[name].append(sum(generate(denoiser, [one], rule, **lengths).seconds for one in few) / len(few))
    return {name: min(some[1:]) for name, some in passes.items()}


def cell_of(catalogue: Sequence[Arm], task: str, row: Row) -> Cell:
    """The cell of an arm at the dial that was chosen for it."""
    arm = next(arm for arm in catalogue if arm.name == row["arm"])
    return next(cell for cell in arm.on(task).cells if cell.dial == row["dial_chosen"])
