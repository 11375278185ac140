"""Properties are tried on the code as users run it: without the shape checks of the other tests, in a process of their own."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import hypothesis.configuration
import pytest

hypothesis.configuration.set_hypothesis_home_dir(os.path.join(tempfile.gettempdir(), "hypothesis-of-fewer-rounds"))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the properties to tests/test_properties.py where shape checks are on: they would refuse what users may pass."""
    checked = bool(config.getoption("jaxtyping_packages", default=None))
    return True if checked and collection_path.name.startswith("test_") else None
