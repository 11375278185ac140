"""The stages of one base of the trend, each of which is read back where it was finished before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from decoding.comparison.arms import Arm
from decoding.comparison.problems import CheckedProblems
from models.ranks import by_the_first, find_ranks
from train.commands.command_line import parser_of
from train.commands.compare import CompareCall, run_compare
from train.tasks import get
from train.tasks.problems import kept_problems

TRAINED = "trained.json"


def train_base(config: Path, out: Path) -> dict[str, Any]:
    """Train a base as its config says, into a folder, unless it is there; returns the settings of the run.

    Args:
        config: of `train.pretrain`.
        out: folder of the base, in place of the config's.
    """
    from train.base.validation import CHECKPOINT
    from train.pretrain import pretrain

    parser = parser_of(pretrain)
    parsed = parser.parse_args(["--config", str(config), "--out", str(out)])
    settings: dict[str, Any] = json.loads(parser.dump(parsed, format="json"))
    if (out / CHECKPOINT).is_file() or not (out / TRAINED).is_file():
        values = parser.instantiate(parsed).as_dict()
        pretrain(**{name: value for name, value in values.items() if name != "config"})
        by_the_first(lambda: leave_mark(out))
    find_ranks().barrier()
    return settings


def leave_mark(out: Path) -> None:
    """Say that a base is trained, and after how many steps and minutes, where that is not said yet."""
    if (out / TRAINED).is_file():
        return
    import torch

    from decoding.provenance import write_json
    from train.base.validation import CHECKPOINT

    done = torch.load(out / CHECKPOINT, map_location="cpu", weights_only=True)["base_model_fit"]
    write_json(out / TRAINED, {"steps": int(done["steps"]), "minutes": float(done["minutes"])})


def draw_all(tasks: Sequence[str], folder: Path, *, num_prompts: int, num_dev: int, seed: int) -> list[CheckedProblems]:
    """Prompts of all tasks with their checkers, kept in a folder.

    Args:
        tasks: names.
        folder: of a file for each task, read where it is there and else written.
        num_prompts, num_dev: test and dev prompts of a task.
        seed: of the generators.
    """
    sizes = {"num_prompts": num_prompts, "num_dev": num_dev, "seed": seed}
    return [kept_problems(get(name), folder, **sizes) for name in tasks]


def compare_arms(
    catalogue: Sequence[Arm],
    problems: Sequence[CheckedProblems],
    model: Path,
    folder: Path,
    *,
    batch_size: int,
    engine: str,
    dtype: str,
    seed: int,
    device: str | None,
) -> None:
    """Run all arms on the prompts of all tasks, products of float32 weights on a GPU in TF32, into `folder/compare`.

    Args:
        catalogue: the arms.
        problems: of every task.
        model: the base.
        folder: of the point, with its head.
        batch_size: prompts at a time.
        engine: of the decodes.
        dtype: of the weights.
        seed: of draws and resamples.
        device: where to run.
    """
    call = CompareCall(tuple(catalogue), (), tuple(problems), str(model), str(folder / "head"))
    out = str(folder / "compare")
    how: dict[str, Any] = {"device": device, "dtype": dtype, "engine": engine, "tf32": True}
    run_compare(call, out=out, batch_size=batch_size, seed=seed, **how)
