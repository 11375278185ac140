"""Fit the cascade of a head: ``python -m train.cascade --config configs/train/cascade.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from train.head.settings import CascadeFitting, TaskRun


def cascade(
    *,
    tasks: dict[str, TaskRun],
    fitting: CascadeFitting,
    model: str = "checkpoints/reason-7m",
    head: str = "checkpoints/reason-7m-head",
    out: Path = Path("checkpoints/runs/cascade"),
    seed: int = 0,
    device: str | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    tf32: bool = False,
) -> None:
    """Teach a head to foretell the base's next forward once a round's tokens are committed.

    The states are those that the drivers lead through on train prompts, drawn again and again; the labels are the forwards that
    follow them, so no trace is kept. A head that has a cascade of this shape goes on from it.

    Args:
        tasks: which prompts.
        fitting: how long, how large, and which drivers.
        model: folder or hub id of the base.
        head: folder of the scoring head that gets the cascade.
        out: folder of the head with it.
        seed: of prompts and draws.
        device: where to run; by default the GPU if there is one.
        dtype: of the base.
        tf32: faster matrix products on a GPU, with inputs of 10 bits.
    """
    from train.commands.folders import check_head_folder, check_model

    if not tasks:
        raise ValueError("tasks must name at least one task, got none")
    check_model(model, "")
    check_head_folder(head)

    import torch

    import models
    from train.cascade.fit import fit_cascade

    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    print(fit_cascade(models.load(model, head=head, device=device, dtype=dtype), tasks, fitting, out, seed=seed))


if __name__ == "__main__":
    from train.commands.command_line import run

    run(cascade, default_config="configs/train/cascade.yaml")
