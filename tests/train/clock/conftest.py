"""A command line of small sizes on a tiny base."""

from __future__ import annotations

import pytest
import yaml

ARMS = [
    {"name": "sequential", "kind": "headless", "policy": "sequential"},
    {"name": "threshold", "kind": "headless", "policy": "threshold", "dial": "threshold", "values": [0.1, 0.99, 0.6]},
    {"name": "look", "kind": "learned", "policy": "learned", "dial": "risk_bound", "values": [0.07, 0.9]},
]
ARMS[2] |= {"settings": {"looks": 1}}
SIZES = {"num_dev": 4, "num_prompts": 4, "alone": 2, "batch_size": 2, "repeats": 2, "slack": 0.25, "device": "cpu"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, write_tiny) -> str:
    """A base that gets nothing right, so that the boldest setting of every arm holds."""
    return str(write_tiny(tmp_path_factory.mktemp("base")))


@pytest.fixture
def config(tmp_path, tiny):
    """Writes a config of small sizes on the tiny base and gives the command line with it."""

    def write(task: str = "countdown3", **changes) -> list[str]:
        file = tmp_path / "clock.yaml"
        settings = {"task": task, "catalogue": ARMS, "out": str(tmp_path / "out"), "model": tiny, **SIZES, **changes}
        file.write_text(yaml.safe_dump(settings))
        return ["--config", str(file)]

    return write
