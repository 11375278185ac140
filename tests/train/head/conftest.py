"""The command of `train.py`, and a base that runs fast."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.train.head.small_run import ROOT


@pytest.fixture(scope="module")
def command():
    """The function of train.py, which has the name of the package."""
    spec = importlib.util.spec_from_file_location("train_command", ROOT / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.train


@pytest.fixture(scope="module")
def base(tmp_path_factory, write_tiny) -> Path:
    """A LLaDA checkpoint of two small blocks with random weights, sure of itself, and the shipped tokenizer."""
    return write_tiny(tmp_path_factory.mktemp("base"), width=32, layers=2, sharpness=60)
