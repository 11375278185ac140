"""Fit the cascade of a head: ``python -m train.cascade --config configs/train/cascade.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from models.complaints import shown
from train.defaults.settings import Trials
from train.head.settings import CascadeFitting, TaskRun, require_prompts


def cascade(
    *,
    tasks: dict[str, TaskRun],
    fitting: CascadeFitting,
    trials: Trials = Trials(),  # noqa: B008 (frozen)
    model: str | None = None,
    head: str | None = None,
    out: Path = Path("checkpoints/runs/cascade"),
    seed: int = 0,
    device: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    tf32: bool = False,
    leave_out: str | None = None,
) -> None:
    """Teach a head to foretell the base's next forward once a round's tokens are committed.

    The states are those that the drivers lead through on train prompts, drawn again and again; the labels are the forwards that
    follow them, so no trace is kept. A head that has a cascade of this shape goes on from it. Then dev prompts choose what the
    head decodes with by default: with the cascade only where that loses no answers. A call that is repeated goes on where it was
    cut off.

    Args:
        tasks: which prompts.
        fitting: how long, how large, and which drivers.
        trials: how many dev prompts choose the settings that the head decodes with by default, and among which bounds.
        model: folder or hub id of the base; default the shipped model.
        head: folder of the scoring head that gets the cascade; default the one that ships for the model.
        out: folder of the head with it.
        seed: of prompts and draws.
        device: where to run; by default the GPU if there is one.
        dtype: of the base; default float32 on the CPU, the checkpoint's own elsewhere.
        tf32: faster matrix products on a GPU, with inputs of 10 bits.
        leave_out: names of tasks that are not fitted on, with commas between them.
    """
    from train.commands.command_line import keep_options
    from train.commands.folders import MODEL, check_model, head_of, or_shipped

    tasks = without(tasks, leave_out)
    if not tasks:
        raise ValueError("tasks must name at least one task, got none")
    check_model(or_shipped(model, MODEL), "")
    model, head = or_shipped(model, MODEL), head_of(model, head)
    if out.resolve() == Path(head).resolve():
        raise ValueError(f"out must not be the folder of the head that gets the cascade, got {shown(str(out))}")
    for name, of_task in tasks.items():
        require_prompts(of_task.task(name), of_task)

    import torch

    import models
    from models.ranks import by_the_first
    from train.cascade.fit import fit_cascade
    from train.defaults.model_card import leave, usage_of
    from train.defaults.search import choose_defaults, first_prompts, refuse_trials
    from train.head.head_run import quieten
    from train.head.stages import cascade_done, named

    quieten()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    asked = named(Path(head), tasks, seed)
    done = cascade_done(out, fitting, asked)
    denoiser = models.load(model, head=out if done else head, device=device, dtype=dtype)
    how: dict[str, Any] = {"batch_size": fitting.batch_size, "seed": seed}
    refuse_trials(denoiser, tasks, trials, out, **how)
    if done:
        keep_options()
    else:
        print(fit_cascade(denoiser, tasks, fitting, out, seed=seed, asked=asked, judged=keep_options))
    about = {"base": Path(model).name, "head": Path(head).name, "tasks": ", ".join(tasks)}
    about["cascade"] = f"{fitting.minutes:g} minutes, {fitting.blocks} blocks"

    def settle() -> str:
        choice = choose_defaults(denoiser, tasks, trials, out, **how)
        return leave(out, choice, about, usage_of(out, first_prompts(tasks, seed=seed), model))

    print(by_the_first(settle))


def without(tasks: dict[str, TaskRun], names: str | None) -> dict[str, TaskRun]:
    """The tasks but those named.

    Raises:
        ValueError: for a name that is not among them.
    """
    left_out = [] if names is None else [name.strip() for name in names.split(",")]
    for name in left_out:
        if name not in tasks:
            raise ValueError(f"leave_out must name tasks among {', '.join(tasks)}, got {shown(name)}")
    return {name: run for name, run in tasks.items() if name not in left_out}


if __name__ == "__main__":
    from train.commands.command_line import run

    run(
        cascade,
        default_config="configs/train/cascade.yaml",
        kept="{out} holds the head as last saved, if it was: it is a --head",
    )
