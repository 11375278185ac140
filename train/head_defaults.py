"""Choose anew what a head decodes with by default: ``python -m train.head_defaults --head checkpoints/runs/head --task sudoku``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from models.complaints import shown
from train.defaults.settings import Trials
from train.head.settings import TaskRun
from train.head.task_choice import names_of


def head_defaults(
    *,
    head: str,
    task: str,
    trials: Trials = Trials(),  # noqa: B008 (frozen)
    prompts: str | None = None,
    model: str | None = None,
    out: Path | None = None,
    batch_size: int = 16,
    seed: int = 0,
    device: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    run_code: bool = False,
    random_cascade: bool = False,
) -> None:
    """Decode dev prompts with a head and without, write what wins to `defaults.json`, and say what was won.

    Args:
        head: folder of the scoring head.
        task: names of the tasks that no setting may lose answers on, with commas between them.
        trials: how many dev prompts of each, and which risk bounds.
        prompts: file of prompts of the one task, in place of its generator.
        model: folder or hub id of the base; default the shipped model.
        out: folder that gets `defaults.json` and `trials/`; by default the head's own.
        batch_size: prompts at a time.
        seed: of the prompts.
        device: where to run; by default the GPU if there is one.
        dtype: of the base; default float32 on the CPU, the checkpoint's own elsewhere.
        run_code: let checkers run what the base writes.
        random_cascade: a control: put a cascade of random weights, drawn from the seed, in place of the head's own; the
            defaults must come out as those of the rule alone. `out` must be given.
    """
    from models.checkpoints.hub import is_hub_name
    from train.commands.folders import MODEL, check_model, named_head, or_shipped
    from train.tasks import get, require_permission

    model = or_shipped(model, MODEL)
    check_model(model, "")
    if out is None and is_hub_name(head):
        raise ValueError(
            f"out must be given for a head on the hub, whose copy here stays as it is, got none for {head}"
        )
    if random_cascade and out is None:
        raise ValueError("out must be given with random_cascade, whose defaults are not the head's own, got none")
    head = named_head(head)
    if random_cascade and out is not None and Path(out).resolve() == Path(head).resolve():
        raise ValueError(f"out must not be the head's own folder with random_cascade, got {shown(str(out))}")
    names = names_of(task)
    if prompts is not None and len(names) > 1:
        raise ValueError(f"prompts must come with one task, got {task}")
    for name in names:
        require_permission(get(name), run_code)
    runs = {name: TaskRun(prompts_file=prompts, at_most=prompts is not None) for name in names}

    import models
    from train.defaults.controls import put_random_cascade
    from train.defaults.model_card import said_of
    from train.defaults.search import choose_defaults

    denoiser = models.load(model, head=head, device=device, dtype=dtype)
    if random_cascade:
        put_random_cascade(denoiser, seed=seed)
    where = Path(head) if out is None else out
    how: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "run_code": run_code}
    print(said_of(choose_defaults(denoiser, runs, trials, where, **how)))


if __name__ == "__main__":
    from train.commands.command_line import run

    run(head_defaults)
