"""A head as it ships: ``python -m train.compact --head checkpoints/runs/cascade --out checkpoints/runs/compact --rank 20``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.heads.cascade import Cascade


def compact(*, head: Path, out: Path, model: str | None = None, rank: int | None = None) -> None:
    """Round every matrix of a head and its cascade to bfloat16, and cut the cascade's LoRA to its largest singular values.

    Args:
        head: folder of the head.
        out: a folder apart from it and without a head, for a copy of everything there with smaller weights.
        model: folder or hub id of the base it was fitted on; default the shipped model.
        rank: of the LoRA that the cascade keeps, below its own; None keeps all of it.
    """
    from train.commands.folders import MODEL, check_model, named_head, or_shipped

    model = or_shipped(model, MODEL)
    check_model(model, "")
    head = Path(named_head(head))
    here, there = head.resolve(), out.resolve()
    if here in (there, *there.parents) or there in here.parents:
        raise ValueError(f"out must be a folder apart from head, got {out}")
    if (out / "head.safetensors").exists() or (out / "cascade").exists():
        raise ValueError(f"out must be a folder without a head, got {out}")
    if rank is not None and rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}")

    import shutil

    import models
    from models.heads.scoring_head import save_head

    small = models.load(model, head=str(head), device="cpu").head
    if rank is not None:
        if small.cascade is None or rank >= small.cascade.config.rank:
            rank_now = "no cascade" if small.cascade is None else f"rank {small.cascade.config.rank}"
            raise ValueError(f"rank must be below that of the head's cascade, got {rank} with {rank_now}")
        small.cascade = cut(small.cascade, rank)
    shutil.copytree(
        head, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors", "adapter_config.json")
    )
    for parameter in small.parameters():
        if parameter.ndim > 1:  # vectors, means and biases stay as they are
            parameter.data = parameter.data.bfloat16()
    save_head(small, out)


def cut(cascade: Cascade, rank: int) -> Cascade:
    """The cascade with the best LoRA of a lower rank: every product B A by its `rank` largest singular values."""
    import warnings
    from dataclasses import replace
    from typing import Any, cast

    from peft import convert_to_lora, set_peft_model_state_dict

    scale = cascade.config.alpha // cascade.config.rank or 1
    made = type(cascade)(replace(cascade.config, rank=rank, alpha=scale * rank), cascade.base)
    made.load_state_dict({k: v for k, v in cascade.state_dict().items() if "lora_" not in k}, strict=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Converting a PEFT adapter to LoRA that is already")
        _, lora = convert_to_lora(cast(Any, cascade.stream), rank)
    lora = {name: value / scale if "lora_B" in name else value for name, value in lora.items()}  # made for alpha = rank
    set_peft_model_state_dict(cast(Any, made.stream), lora)
    return made


if __name__ == "__main__":
    from train.commands.command_line import run

    run(compact)
