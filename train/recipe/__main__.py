"""A head from prompts to scores, by one config: ``python -m train.recipe --config configs/recipe/llada-8b.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from models.complaints import shown


def recipe(
    *,
    model: str,
    out: Path,
    train: dict[str, Any],
    calibrate: dict[str, Any] | None = None,
    compare: dict[str, Any] | None = None,
    lm_eval: dict[str, Any] | None = None,
    adapter: str | None = None,
    device: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    stages: str = "train,calibrate,compare,lm_eval",
    estimate: bool = False,
) -> None:
    """Collect, fit a head and its cascade, calibrate a dial, compare decoders and score them with lm-eval, one after the other.

    Every stage is a command of the project with a config of its own in the folder, and goes on where it was stopped.

    Args:
        model: checkpoint folder or hub id of the base.
        out: folder of the stages: head, calibration, comparison, lm-eval.
        train: options of train.py, which collects, fits the head and its cascade, and chooses what it decodes with.
        calibrate: options of calibrate.py; a stage without a section is left out.
        compare: options of compare.py.
        lm_eval: options of the harness: tasks, model_args (names with values) and its own, as --limit.
        adapter: folder of a PEFT LoRA adapter, merged into the base.
        device: cpu, cuda, ...; default the GPU if there is one.
        dtype: of the weights; default float32 on the CPU, the checkpoint's own elsewhere.
        stages: names of those that run, with commas between them.
        estimate: only say, in three quarters of a minute once the base is loaded, what train and compare will take.
    """
    from train.commands.command_line import keep_options
    from train.commands.folders import check_adapter, check_model
    from train.recipe.stages import STAGES, Base, judge, run_stage, with_comparison

    wanted = [name.strip() for name in stages.split(",")]
    for name in wanted:
        if name not in STAGES:
            raise ValueError(f"stages must be among {', '.join(STAGES)}, got {shown(name)}")
    sections = {"train": train, "calibrate": calibrate, "compare": compare, "lm_eval": lm_eval}
    told = {name: section for name, section in sections.items() if section is not None and name in wanted}
    if estimate:
        told = {"train": {**with_comparison(train, told.get("compare", {})), "estimate": True}}
    check_model(model, "")
    check_adapter(adapter)
    base = Base(model, adapter, device, dtype, out)
    judge(base, told)
    keep_options()
    for name, section in told.items():
        run_stage(base, name, section)
    if estimate:
        print("not counted: what calibrate and lm_eval decode")


if __name__ == "__main__":
    from train.commands.command_line import GOES_ON, run

    run(recipe, kept=GOES_ON)
