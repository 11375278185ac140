"""What the tests of saved parts share: a small exported base, once for the session and as a copy to damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.models.checkpoints.small_parts import small, write


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    return write(small(0), tmp_path_factory.mktemp("base") / "base")


@pytest.fixture
def base(exported, tmp_path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "base"))
