"""A run of `train.py` that takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from decoding.traces.labelling import Labelling
from train.head.head_run import HeadRun
from train.head.settings import Fitting, TaskRun

ROOT = Path(__file__).parents[3]
SMALL = {
    "tasks": {
        "multiplication": {"prompts": 4, "dev_prompts": 2, "block_length": 16},
        "countdown3": {"prompts": 3, "dev_prompts": 2, "block_length": 8},
    },
    "beam": {"threshold": 0.9, "branches": 2},
    "drivers": {
        "ete": {"policy": "ete", "block_length": 8},
        "threshold": {"policy": "threshold", "threshold": 0.8, "block_length": 5},  # divides neither canvas
    },
    "labelling": {"states_per_prompt": 3, "labelled": 1, "branches": 4, "strata": 2, "finished": 1},
    "fitting": {"variants": ["lora", "features", "shuffled"], "epochs": 2, "batch_size": 4, "rank": 2, "width": 16},
    "trials": {"screen": 2, "confirm": 2},
    "num_prompts": 4,
    "num_dev": 2,
    "catalogue": [
        {"name": "sequential", "kind": "headless", "policy": "sequential"},
        {"name": "learned", "kind": "learned", "policy": "learned", "dial": "risk_bound", "values": [0.3]},
    ],
}


def written(folder: Path, **changes: Any) -> str:
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump({**SMALL, **changes}, sort_keys=False))
    return str(file)


def job_of(base: Path, out: Path, **changes: Any) -> HeadRun:
    values = {
        "model": str(base), "out": out, "tasks": {"countdown3": TaskRun(prompts=3, dev_prompts=2)},
        "beam": {"branches": 2}, "drivers": {"ete": {"policy": "ete"}}, "relabel": {},
        "labelling": Labelling(states_per_prompt=2, branches=3, strata=1, finished=1),
        "fitting": Fitting(variants=("linear",), epochs=1, width=16), "catalogue": (), "num_prompts": 2, "num_dev": 2,
        "batch_size": 4, "seed": 0, "device": "cpu",
    }  # fmt: skip
    return HeadRun(**{**values, **changes})
