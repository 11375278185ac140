"""A task of lm-evaluation-harness whose instances are a file of JSON lines."""

from pathlib import Path
from typing import Any

import yaml


def lm_eval_task(name: str, data: Path, metric: str, **fields: Any) -> str:
    """The YAML of a task that reads its test instances from `data` and is scored by one metric."""
    source = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test"}
    return yaml.safe_dump({"task": name, **source, **fields, "metric_list": [{"metric": metric}]})
