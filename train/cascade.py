"""Fit the cascade of a head: ``python -m train.cascade --config configs/train/cascade.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from train.head_settings import TaskRun


def cascade(
    *,
    tasks: dict[str, TaskRun],
    drivers: list[dict[str, Any]],
    model: str = "checkpoints/reason-7m",
    head: str = "checkpoints/reason-7m-head",
    out: Path = Path("checkpoints/runs/cascade"),
    minutes: float = 10.0,
    batch_size: int = 16,
    blocks: int = 1,
    rank: int = 32,
    learning_rate: float = 1e-3,
    seed: int = 0,
    device: str | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    tf32: bool = False,
) -> None:
    """Teach a head to foretell the base's next forward once a round's tokens are committed.

    The states are those that the drivers lead through on train prompts, drawn again and again; the labels are the forwards that
    follow them, so no trace is kept. A head that has a cascade of this shape goes on from it.

    Args:
        tasks: which prompts; `prompts_file` as in head.yaml.
        drivers: policies, {policy: NAME, setting: value}; one leads each batch of prompts.
        model: folder or hub id of the base.
        head: folder of the scoring head that gets the cascade.
        out: folder of the head with it.
        minutes: of fitting; what is reached is saved four times on the way.
        batch_size: prompts led together.
        blocks: K, how many of the base's last blocks run again.
        rank: of the LoRA.
        learning_rate: of AdamW; up over the first twentieth of the minutes, then down to 0.
        seed: of prompts and draws.
        device: where to run; by default the GPU if there is one.
        dtype: of the base.
        tf32: faster matrix products on a GPU, with inputs of 10 bits.
    """
    for name, value in (("minutes", minutes), ("batch_size", batch_size), ("learning_rate", learning_rate)):
        if value <= 0:
            raise ValueError(f"{name} must be above 0, got {value}")
    if not tasks or not drivers:
        raise ValueError(f"tasks and drivers must name at least one each, got {len(tasks)} and {len(drivers)}")
    for entry in drivers:
        if "policy" not in entry:
            raise ValueError(f"a driver must name its policy, got {entry}")
    from train.question import check_model

    check_model(model, "")
    if not (Path(head) / "head.safetensors").is_file():
        raise ValueError(f"head must be a folder with head.safetensors, got {head}")

    import torch

    import models
    from decoding.api import make_policy
    from models.cascade import Cascade, CascadeConfig
    from train.cascade_fit import Prompts, fit_cascade
    from train.fit import prompts_of
    from train.tasks import get

    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.manual_seed(seed)
    denoiser = models.load(model, head=head, device=device, dtype=dtype)
    config = CascadeConfig(blocks=blocks, rank=rank, alpha=2 * rank, base=denoiser.fingerprint())
    if denoiser.head.cascade is None or denoiser.head.cascade.config != config:
        denoiser.head.cascade = Cascade(config, denoiser).to(denoiser.device)
    leads = [
        make_policy(entry["policy"], {k: v for k, v in entry.items() if k != "policy"}, denoiser) for entry in drivers
    ]

    def prompts(split: str, name: str, run: TaskRun) -> Prompts:
        count, task = run.prompts if split == "train" else run.dev_prompts, get(name)
        texts = [example.prompt for example in prompts_of(task, run, split, count, seed=seed)]
        return Prompts(name, texts, task.gen_length, run.block_length or task.block_length)

    train, dev = ([prompts(split, name, run) for name, run in tasks.items()] for split in ("train", "dev"))
    fit_cascade(
        denoiser, train, dev, leads, out, minutes=minutes, batch_size=batch_size, learning_rate=learning_rate, seed=seed
    )


if __name__ == "__main__":
    from train.command import run

    run(cascade, default_config="configs/train/cascade.yaml")
