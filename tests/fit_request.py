"""What a run of `train.py` is asked for, with the least of everything."""

from __future__ import annotations

from pathlib import Path

from decoding.traces.labelling import Labelling
from train.head.head_run import HeadRun
from train.head.settings import Fitting, TaskRun


def job_of(out: Path, **changes) -> HeadRun:
    values = {
        "model": None, "out": out, "tasks": {"lists": TaskRun(prompts=40, dev_prompts=8)},
        "beam": {}, "drivers": {"t": {"policy": "threshold"}},
        "relabel": {}, "labelling": Labelling(), "fitting": Fitting(), "catalogue": (), "num_prompts": 1, "num_dev": 1,
        "batch_size": 4, "seed": 0, "device": "cpu",
    }  # fmt: skip
    return HeadRun(**{**values, **changes})
