"""Fit a scoring head: python train.py --config configs/train/head.yaml"""

import logging
from pathlib import Path
from typing import Any, Literal

from decoding.comparison.arms import Arm
from decoding.traces.labelling import Labelling
from models.ranks import by_the_first
from train.commands.command_line import GOES_ON, run
from train.commands.train import run_train
from train.defaults.settings import Trials
from train.head.estimate import estimate_run
from train.head.head_run import HeadRun
from train.head.settings import CascadeFitting, Fitting, TaskRun
from train.head.task_choice import only


def train(  # one option a line, hence its length
    tasks: dict[str, TaskRun],
    beam: dict[str, Any],
    drivers: dict[str, dict[str, Any]],
    labelling: Labelling,
    fitting: Fitting,
    cascade: CascadeFitting | None = None,
    trials: Trials = Trials(),  # noqa: B008 (frozen)
    catalogue: list[Arm] | None = None,
    relabel: dict[str, dict[str, Any]] | None = None,
    task: str | None = None,
    leave_out: str | None = None,
    prompts: str | None = None,
    model: str | None = None,
    adapter: str | None = None,
    out: str = "checkpoints/runs/head",
    num_prompts: int = 48,
    num_dev: int = 24,
    gen_length: int | None = None,
    use_cache: Literal["none", "prefix", "dual"] | None = None,
    batch_size: int = 16,
    seed: int = 0,
    device: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    run_code: bool = False,
    budget_hours: float | None = None,
    estimate: bool = False,
) -> None:
    """Fit the scoring head of a base model on beam traces and compare it with beam ETE.

    Args:
        tasks: what is collected of each task.
        beam: settings of the reference policy `ete`.
        drivers: policies that lead through the states, name -> {policy: NAME, setting: value}.
        labelling: how much is kept and tried of each prompt.
        fitting: how heads are fitted.
        cascade: how the cascade of the run's head is fitted after it; without it there is none.
        trials: how many dev prompts choose the settings that the head decodes with by default, and among which bounds.
        catalogue: arms of the closing comparison.
        relabel: policies that the first head leads through states of its own with.
        task: the only one of the tasks to collect, or another one with its own counts by default.
        leave_out: tasks that the head does not see, with commas between them.
        prompts: file of its prompts, in place of a generator.
        model: checkpoint folder or hub id; default the shipped model.
        adapter: folder of a PEFT LoRA adapter, merged into the model.
        out: folder of the run.
        num_prompts: test prompts of a task in the comparison.
        num_dev: dev prompts of a task in the comparison.
        gen_length: positions to fill, of every task; default its own.
        use_cache: of the decodes that choose the head's defaults and compare it; default none.
        batch_size: canvases in one forward.
        seed: of prompts, draws and the first fit.
        device: cpu, cuda, ...; default the GPU if there is one.
        dtype: of the base; default float32 on the CPU, the checkpoint's own elsewhere.
        run_code: let the checkers of humaneval and mbpp run the base's code on this machine.
        budget_hours: what collection may take; it is cut to that, and fitting goes on with what is there.
        estimate: only say, in three quarters of a minute once the base is loaded, what the run will take.
    """
    options: dict[str, Any] = {"num_prompts": num_prompts, "num_dev": num_dev, "batch_size": batch_size, "seed": seed}
    options |= {"adapter": adapter, "device": device, "dtype": dtype, "run_code": run_code, "leave_out": leave_out}
    options |= {"model": model, "catalogue": tuple(catalogue or ()), "relabel": relabel or {}}
    options |= {"beam": beam, "drivers": drivers, "labelling": labelling, "fitting": fitting, "cascade": cascade}
    options |= {"budget_hours": budget_hours, "trials": trials}
    tasks = only(tasks, task, prompts, leave_out, gen_length=gen_length, use_cache=use_cache)
    head_run = HeadRun(out=Path(out), tasks=tasks, **options)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    print(by_the_first(lambda: estimate_run(head_run)) if estimate else run_train(head_run))


if __name__ == "__main__":
    run(train, default_config="configs/train/head.yaml", kept=GOES_ON)
