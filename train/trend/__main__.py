"""One point of the trend over sizes: ``python -m train.trend --config configs/trend/measured.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from decoding.comparison.arms import Arm
from decoding.traces.labelling import Labelling
from models.ranks import by_the_first, the_first_before
from train.head.head_run import HeadRun, quieten
from train.head.settings import CascadeFitting, Fitting, TaskRun, require_prompts
from train.trend.stored import results_left, settings_of


def trend(  # one option a line, hence its length
    *,
    name: str,
    base: Path,
    tasks: dict[str, TaskRun],
    beam: dict[str, Any],
    drivers: dict[str, dict[str, Any]],
    labelling: Labelling,
    fitting: Fitting,
    cascade: CascadeFitting,
    catalogue: list[Arm],
    timed: dict[str, list[str]],
    out: Path,
    results: Path | None = None,
    point: int | None = None,
    stage: Literal["all", "prompts", "training", "decoding"] = "all",
    prompts: Path = Path("checkpoints/runs/trend/prompts"),
    num_prompts: int = 1000,
    num_dev: int = 250,
    timed_prompts: int = 20,
    batch_size: int = 512,
    engine: Literal["auto", "plain", "graphs"] = "auto",
    dtype: Literal["float32", "bfloat16"] = "float32",
    seed: int = 0,
    device: str | None = None,
) -> None:
    """Train a base, fit head and cascade on some points of its training, measure them, and store what the trend needs.

    A call that is repeated goes on where it was cut off, and measures no point whose result is there. Matrix products in float32
    on a GPU take inputs of 10 bits (TF32). Of several processes (`torchrun`) all train, fit and decode; the first alone runs what
    is timed.

    Args:
        name: of the base in the results.
        base: config of `train.pretrain`, whose `points` are measured.
        tasks: prompts that head and cascade are fitted on, and tasks that are measured.
        beam: settings of `ete`, whose candidates the head's traces hold.
        drivers: policies that lead through the states, name -> {policy: NAME, setting: value}.
        labelling: how much of a decode becomes a trace.
        fitting: how the head is fitted.
        cascade: how its cascade is fitted.
        catalogue: arms that are compared.
        timed: what the results call it -> arms of that kind; the best of each on the dev prompts is timed.
        out: folder of the base, with a folder of each point beside it.
        results: folder of NAME-POINT.json; by default `results` in `out`.
        point: the only one that is measured, from 1; by default all are.
        stage: draw the prompts and end, train the base and end, decode every arm and end, or go on to the clock and the results.
        prompts: folder of the prompts that are measured on, which all bases share.
        num_prompts: test prompts of a task.
        num_dev: dev prompts of a task, which choose the dials.
        timed_prompts: of each task, decoded one by one against the clock; 0 times nothing.
        batch_size: canvases in one forward.
        engine: of the comparison; the clock runs by the one that a user gets.
        dtype: of the weights while arms are compared and clocked; head and cascade are fitted in float32.
        seed: of prompts, draws and fits.
        device: where to run; by default the GPU if there is one.
    """
    options, measures = dict(locals()), stage in ("all", "decoding")
    settings = settings_of(options, base)
    _judge([arm.name for arm in catalogue], timed, tasks if measures else {})
    files = results_left(results or out / "results", name, point, settings) if measures else {}
    if measures and not files:
        return

    import torch

    from train.commands.train import run_train
    from train.trend.measuring import Measuring, record
    from train.trend.stages import compare_arms, draw_all, train_base

    quieten()
    torch.set_float32_matmul_precision("high")  # of a base that was trained in this process or another
    drawn: dict[str, Any] = {"num_prompts": num_prompts, "num_dev": num_dev, "seed": seed}
    if stage == "prompts":
        by_the_first(lambda: draw_all(list(tasks), prompts, **drawn))
        return
    trained = train_base(base, out / "base")
    if stage == "training":
        return
    problems = the_first_before(lambda: draw_all(list(tasks), prompts, **drawn))
    run: dict[str, Any] = {"dtype": dtype, "seed": seed, "device": device}
    fits: dict[str, Any] = {"tasks": tasks, "beam": beam, "drivers": drivers, "relabel": {}, "labelling": labelling}
    fits |= {"fitting": fitting, "cascade": cascade, "catalogue": (), "num_prompts": 1, "num_dev": 1}
    fits |= {"batch_size": batch_size, "seed": seed, "device": device, "dtype": "float32"}
    for number, file in files.items():
        model, folder = out / "base" / f"point-{number}", out / f"point-{number}"
        run_train(HeadRun(model=str(model), out=folder / "head", **fits))
        compare_arms(catalogue, problems, model, folder, batch_size=batch_size, engine=engine, **run)
        if stage != "decoding":
            about = Measuring(name, number, model, folder, tuple(tasks), cascade.blocks, timed_prompts, **run)
            by_the_first(lambda: record(about, catalogue, timed, trained, settings, file))  # noqa: B023


def _judge(arms: list[str], timed: dict[str, list[str]], fitted: dict[str, TaskRun]) -> None:
    """Refuse arms to be timed that the catalogue lacks, and tasks to fit on without prompts."""
    unknown = sorted({arm for some in timed.values() for arm in some} - {*arms})
    if unknown:
        raise ValueError(f"timed must name arms of the catalogue ({', '.join(arms)}), got {', '.join(unknown)}")
    for name, run in fitted.items():
        require_prompts(run.task(name), run)


if __name__ == "__main__":
    import logging

    from train.commands.command_line import GOES_ON, run

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    run(trend, kept=GOES_ON)
