"""What is stored of a base already: a result counts for the settings that it was measured with."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from models.checkpoints.json_files import read_object
from models.complaints import first_difference, shown
from train.commands.raw_arguments import check_config

logger = logging.getLogger(__name__)

SETTINGS = "settings"
PLACES = {"base", "out", "results", "prompts", "cache", "device", "point", "stage"}  # change nothing that is measured


def settings_of(options: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """What a result depends on, as JSON holds it.

    Args:
        options: of the call.
        base: config that the base is trained by, whose settings come as `base.NAME`.

    Raises:
        ValueError: for a file that is no config, or one without points.
    """
    if not base.is_file():
        raise ValueError(f"base must be a config of train.pretrain, got {base}")
    check_config(base)
    training = yaml.safe_load(base.read_text(encoding="utf-8"))
    if not isinstance(training.get("points"), list) or not training["points"]:
        raise ValueError(f"base must be a config with points, got {base} without")
    found = {name: value for name, value in options.items() if name not in PLACES}
    found |= {f"base.{name}": value for name, value in training.items() if name not in PLACES}
    plain: dict[str, Any] = json.loads(json.dumps(found, default=asdict))
    return plain


def results_left(results: Path, name: str, point: int | None, settings: Mapping[str, Any]) -> dict[int, Path]:
    """Number of each point that is not stored yet -> the file for its result; says of the others where that is.

    Args:
        results: folder of NAME-POINT.json.
        name: of the base.
        point: the only one that is asked for; None asks for all.
        settings: of the call.

    Raises:
        ValueError: for a point that the base does not keep, and a stored result of other settings, naming the first that differs.
    """
    numbers = range(1, len(settings["base.points"]) + 1)
    if point is not None and point not in numbers:
        raise ValueError(f"point must lie in [1, {len(numbers)}], got {point}")
    files = {number: results / f"{name}-{number}.json" for number in (numbers if point is None else [point])}
    there = {number: file for number, file in files.items() if file.is_file()}
    for file in there.values():
        refuse_other(file, settings)
    for number, file in there.items():
        logger.info("point %d is not measured again: %s is there", number, file)
    return {number: file for number, file in files.items() if number not in there}


def refuse_other(file: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a stored result of other settings, or one that does not say which."""
    stored = read_object(file).get(SETTINGS)
    if not isinstance(stored, Mapping):
        raise ValueError(f"{file} must hold the settings of its measurement, got none: choose other --results")
    name = first_difference(settings, stored)
    if name is not None:
        kept = f"{shown(stored.get(name))} as in {file}"
        raise ValueError(f"{name} must be {kept}, got {shown(settings.get(name))}: choose other --results")
