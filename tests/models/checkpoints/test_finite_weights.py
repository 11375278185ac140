"""Values that are no numbers are refused where weights are read and where they are saved."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import models
from models.checkpoints.families import CheckpointError
from models.checkpoints.manifest import ASIDE, MANIFEST
from models.checkpoints.sums import check_finite
from models.heads.scoring_head import load_head, save_head
from tests.models.checkpoints.small_parts import head_of, same, small, write


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("sealed", [True, False])
def test_a_base_with_a_value_that_is_none_is_refused_by_its_tensor(base, value, sealed):
    if not sealed:
        (base / MANIFEST).unlink()
    weights = load_file(base / "model.safetensors")
    weights["model.transformer.blocks.1.ff_out.weight"].view(-1)[7] = value
    save_file(weights, base / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"model\.transformer\.blocks\.1\.ff_out\.weight of .* must hold finite numbers"
    ):
        models.load(base, device="cpu")


def test_a_number_format_that_overflows_is_refused_by_the_tensor(base):
    (base / MANIFEST).unlink()
    weights = load_file(base / "model.safetensors")
    weights["model.transformer.wte.weight"].view(-1)[3] = 1e6
    save_file(weights, base / "model.safetensors")
    models.load(base, device="cpu")
    with pytest.raises(CheckpointError, match=r"wte\.weight of .* must hold finite numbers, got inf in it"):
        models.load(base, device="cpu", dtype="float16")


def test_large_finite_values_are_no_such_case():
    check_finite({"a": torch.full((64,), 3e38), "b": torch.full((64,), 6e4, dtype=torch.float16)}, "here")
    for value in ([3e38] * 4 + [float("nan")], [float("inf"), -float("inf")]):
        with pytest.raises(CheckpointError, match=r"b of here must hold finite numbers"):
            check_finite({"a": torch.ones(3), "b": torch.tensor(value)}, "here")


@pytest.mark.parametrize("name", ["head.safetensors", "adapter_model.safetensors", "cascade/cascade.safetensors"])
def test_a_head_with_a_value_that_is_none_is_refused(base, tmp_path, name):
    denoiser = models.load(base, device="cpu")
    save_head(head_of(denoiser, 1), tmp_path / "head")
    (tmp_path / "head" / MANIFEST).unlink()
    file = tmp_path / "head" / name
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    stored = load_file(file)
    stored[sorted(stored)[0]].view(-1)[0] = float("nan")
    save_file(stored, file, metadata=metadata)
    with pytest.raises(ValueError, match=r"must hold finite numbers, got nan in it"):
        load_head(tmp_path / "head", denoiser)


@pytest.mark.parametrize("spread", [0.0, -1.0])
def test_a_spread_that_is_none_is_refused(base, tmp_path, spread):
    denoiser = models.load(base, device="cpu")
    head = head_of(denoiser, 1, "linear")
    head.spread[2] = spread
    save_head(head, tmp_path / "head")
    with pytest.raises(ValueError, match=r"spread of the head in .* must be above 0, got"):
        load_head(tmp_path / "head", denoiser)


def test_nothing_is_saved_of_a_head_that_diverged(base, tmp_path):
    denoiser = models.load(base, device="cpu")
    head = head_of(denoiser, 1)
    save_head(head, tmp_path / "head")
    broken = head_of(denoiser, 2)
    with torch.no_grad():
        broken.cascade.rest.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"rest.bias of the cascade to save must hold finite numbers"):
        save_head(broken, tmp_path / "head")
    assert same(load_head(tmp_path / "head", denoiser), head)
    assert not (tmp_path / "head" / ASIDE).exists()


def test_nothing_is_exported_of_a_model_that_diverged(base):
    broken = small(3)
    with torch.no_grad():
        broken.model.norm.weight[0] = float("nan")
    before = {file.name: file.read_bytes() for file in base.iterdir()}
    with pytest.raises(CheckpointError, match=r"ln_f\.weight of the model to export to .* must hold finite numbers"):
        write(broken, base)
    assert before == {file.name: file.read_bytes() for file in base.iterdir()}


@pytest.mark.parametrize("value", [3e38, -1e19])
def test_a_weight_whose_square_no_float_holds_is_refused_by_its_tensor(base, value):
    (base / MANIFEST).unlink()
    weights = load_file(base / "model.safetensors")
    weights["model.transformer.wte.weight"].view(-1)[3] = value
    save_file(weights, base / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"wte\.weight of .* must hold numbers of at most 1e\+18 in size, got"):
        models.load(base, device="cpu")
