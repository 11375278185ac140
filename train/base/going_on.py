"""What a run of `train.pretrain` goes on from: its checkpoint, and the settings that it began with."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from models.complaints import first_difference, shown
from train.base.rows import TaskRows, digest
from train.base.schedule import progress
from train.base.settings import Fit, ModelShape

BROKEN = (pickle.UnpicklingError, zipfile.BadZipFile, NotImplementedError)


def settings_of(
    tasks: Mapping[str, TaskRows],
    tokenizer: Path,
    shape: ModelShape,
    fit: Fit,
    *,
    init: Path | None,
    points: Sequence[float],
    max_steps: int | None,
    max_minutes: float | None,
) -> dict[str, Any]:
    """What a run depends on, as JSON holds it, the budgets among it, which the learning rate follows.

    Args:
        tasks, tokenizer, shape, fit, init, points, max_steps, max_minutes: of `train.pretrain`.
    """
    found: dict[str, Any] = {"tasks": list(tasks)}
    for name, spec in tasks.items():
        found |= {f"tasks.{name}.{key}": value for key, value in asdict(spec).items()}
        files = [digest(Path(file)) if Path(file).is_file() else None for file in spec.files]
        found[f"content of tasks.{name}.files"] = files
    found |= {f"shape.{key}": value for key, value in asdict(shape).items()}
    found |= {f"fit.{key}": value for key, value in asdict(fit).items()}
    found |= {"content of tokenizer": digest(tokenizer / "tokenizer.json"), "init": init and str(init)}
    found |= {"points": list(points), "max_steps": max_steps, "max_minutes": max_minutes}
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain


def progress_of(checkpoint: Path, settings: Mapping[str, Any]) -> float | None:
    """Fraction that is over of the run that a checkpoint is of; None where there is none.

    Args:
        checkpoint: the file to go on from.
        settings: of the run that shall go on.

    Raises:
        ValueError: for a file that is no whole checkpoint, or is of a run with other settings.
    """
    if not checkpoint.is_file():
        return None
    try:
        damaged = zipfile.ZipFile(checkpoint).testzip()
        if damaged is not None:
            raise ValueError(f"other bytes than were written in {damaged}")
        done = torch.load(checkpoint, map_location="cpu", mmap=True, weights_only=True)["base_model_fit"]
        steps, minutes, stored = int(done["steps"]), float(done["minutes"]), done.get("settings")
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, *BROKEN) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{checkpoint} must be a whole checkpoint of this command, got {why}") from error
    if stored is None:
        raise ValueError(f"{checkpoint} must hold the settings of its run, got none: choose another --out")
    name = first_difference(settings, stored)
    if name is not None:
        begun = f"{shown(stored.get(name))} to go on with the run in {checkpoint.parent}"
        raise ValueError(f"{name} must be {begun}, got {shown(settings.get(name))}: choose another --out")
    bounds = {name: settings[name] for name in ("max_steps", "max_minutes")}
    return progress(step=steps, minutes=minutes, **bounds)
