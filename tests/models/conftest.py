"""The golden models: loaded once, with what the authors' code computes for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import models
from models.masked_lm import MaskedLM

GOLDEN = Path(__file__).parents[1] / "golden"
SHARED = Path(__file__).parents[3] / "shared" / "hub"


@dataclass(frozen=True)
class Golden:
    """One family: its folder, its denoiser on the CPU, and the recorded tensors and settings."""

    name: str
    folder: Path
    denoiser: MaskedLM
    tensors: dict[str, torch.Tensor]
    settings: dict[str, Any]


def read_golden(name: str) -> Golden:
    folder = GOLDEN / name
    settings = json.loads((folder / "golden.json").read_text())["generations"]
    return Golden(name, folder, models.load(folder, device="cpu"), load_file(folder / "golden.safetensors"), settings)


@pytest.fixture(scope="session")
def goldens() -> dict[str, Golden]:
    return {name: read_golden(name) for name in ("llada", "dream")}


@pytest.fixture(params=["llada", "dream"])
def golden(goldens: dict[str, Golden], request: pytest.FixtureRequest) -> Golden:
    return goldens[request.param]


@pytest.fixture(scope="session")
def hub() -> Path:
    """Published config.json and weight index of both families."""
    return GOLDEN / "hub"


@pytest.fixture(scope="session")
def published() -> Path:
    """Tokenizer files as published, too large for the repository."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared/hub, the published tokenizer files (4 MB, not in the repository)")
    return SHARED
