"""A study from the command line: judged, run, written as JSON and drawn."""

from __future__ import annotations

import argparse
import inspect
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decoding.studies import STUDIES
from models.complaints import shown
from train.commands.command_line import parser_of, sentence, shipped
from train.commands.folders import MODEL, check_model, find_head
from train.tasks import get
from train.tasks.problems import make_problems

if TYPE_CHECKING:
    from decoding.comparison.problems import CheckedProblems

Result = dict[str, Any]


def check_study(name: str) -> str:
    """The module of a study.

    Raises:
        ValueError: for an unknown name, or where there is no matplotlib to draw with.
    """
    if name not in STUDIES:
        raise ValueError(f"name must be one of {', '.join(STUDIES)}, got {shown(name)}")
    if find_spec("matplotlib") is None:
        raise ValueError("a study must have matplotlib to draw with (extra `studies`), got none installed")
    return STUDIES[name]


def read_settings(measure: Callable[..., Result], settings: Mapping[str, Any]) -> Result:
    """The settings of a study, judged by its signature, defaults filled in.

    Raises:
        ValueError: for a setting that the study does not have, a value of the wrong type, or an empty list.
    """
    parser = parser_of(measure, skip={"inputs"})
    known = inspect.signature(measure).parameters.keys() - {"inputs"}
    unknown = ", ".join(sorted(settings.keys() - known))
    if unknown:
        raise ValueError(f"settings must be among {', '.join(sorted(known))}, got {unknown}")
    try:
        parsed = parser.parse_object(dict(settings))
        found = {name: parser.instantiate(parsed).get(name) for name in known}
    except argparse.ArgumentError as error:
        raise ValueError(sentence(error, measure)) from error
    inner = {
        f"{name}.{key}": one for name, value in found.items() if isinstance(value, dict) for key, one in value.items()
    }
    for name, value in {**found, **inner}.items():
        if isinstance(value, list | tuple) and not value:
            raise ValueError(f"{name} must hold at least one value, got none")
    return found


def with_shipped(given: Mapping[str, Any], settings: Mapping[str, Any]) -> Result:
    """The settings of a study with the folders that it reads by default where they ship, wherever the call comes from.

    Args:
        given: all settings.
        settings: those that were asked for, which stay as they are.
    """
    folders = {name: shipped(value) for name, value in given.items() if isinstance(value, str) and "/" in value}
    return {**given, **{name: str(at) for name, at in folders.items() if name not in settings and at.is_dir()}}


def run_study(
    name: str,
    settings: Mapping[str, Any],
    *,
    out: str,
    model: str | None,
    head: str | None,
    seed: int,
    device: str | None,
    dtype: str | None,
) -> str:
    """Run a study and write `out/NAME.json` and `out/NAME.png`; returns what was written, in words.

    Args:
        name: of the study.
        settings: that differ from its defaults.
        out: folder of the results.
        model: checkpoint folder or hub id; by default the one that ships.
        head: folder of a scoring head; by default the one that ships for the model.
        seed: of prompts and draws.
        device: where to run; by default the GPU if there is one.
        dtype: of the weights; by default as in `models.load`.
    """
    module = import_module(check_study(name))
    given = read_settings(module.measure, settings)
    seen = head is not None  # maybe on a benchmark's own file; the one that ships is fitted on generated prompts
    check_model(str(shipped(MODEL)) if model is None else model, "")
    head = find_head(model, head)
    model = str(shipped(MODEL)) if model is None else model

    from decoding.provenance import environment
    from decoding.studies.inputs import StudyInputs
    from models.devices import find_device

    target = find_device(device)
    inputs = StudyInputs(
        model,
        head,
        str(target),
        seed,
        make_problems=partial(study_problems, seed, seen=seen),
        fit=fit_features,
        dtype=dtype,
    )
    began = time.perf_counter()
    figures = module.measure(inputs, **with_shipped(given, settings))
    cost: Result = {
        "seconds": round(time.perf_counter() - began, 1),
        "sequence_forwards": inputs.cost.sequence_forwards,
    }
    cost["models"] = inputs.cost.models
    origin = environment(device=target, seed=seed)
    result = json.loads(json.dumps({"study": name, **origin, "settings": given, **cost, **figures}, default=str))
    files = write(name, result, module.draw, Path(out))
    return f"{' and '.join(str(file) for file in files)}: {cost['sequence_forwards']} sequence forwards, {cost['seconds']} s"


def write(name: str, result: Result, draw: Callable[[Result, Any], None], folder: Path) -> tuple[Path, Path]:
    """Write result and picture aside and rename them, the result first: a picture that fails loses no figures.

    Args:
        name: of the study, and of both files.
        result: as read back from JSON.
        draw: fills a figure from the result.
        folder: made where it is missing.
    """
    from matplotlib.figure import Figure

    from decoding.files.png import save_png
    from decoding.provenance import write_json

    folder.mkdir(parents=True, exist_ok=True)
    files = folder / f"{name}.json", folder / f"{name}.png"
    write_json(files[0], result)
    figure = Figure(figsize=(8, 5), layout="constrained")  # of no window system: a bare Figure draws with Agg
    draw(result, figure)
    save_png(figure, files[1])
    return files


def study_problems(seed: int, task: str, prompts: int, dev: int, *, seen: bool = False) -> CheckedProblems:
    """The prompts of one task and their checker; `seen` keeps out those that a head may have been fitted on.

    Args:
        seed: of the generator.
        task: its name.
        prompts, dev: test and dev prompts at most.
        seen: see above.
    """
    return make_problems(get(task), None, num_prompts=prompts, num_dev=dev, seed=seed, seen=seen)


def fit_features(*args: Any, **kwargs: Any) -> Any:
    """Fit a features-only head on a denoiser without text (see `train.head.exact_fit`)."""
    return import_module("train.head.exact_fit").fit_features(*args, **kwargs)
