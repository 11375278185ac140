"""A head as it ships: rounded, its cascade's LoRA cut to the largest singular values."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import models
from decoding.features import NAMES
from models.heads.cascade import CASCADE, Cascade, CascadeConfig
from models.heads.config import HeadConfig
from models.heads.scoring_head import ScoringHead, save_head
from train.commands.command_line import run, shipped
from train.compact import compact

BASE = str(shipped("checkpoints/reason-7m"))
RANK, ALPHA, KEPT = 6, 12, 2
LAYER = "base_model.model.blocks.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Path:
    """A head whose cascade has random LoRA, and a note beside it."""
    denoiser = models.load(BASE, device="cpu")
    head = ScoringHead(HeadConfig("linear", NAMES), denoiser)
    head.cascade = Cascade(CascadeConfig(rank=RANK, alpha=ALPHA, base=denoiser.fingerprint()), denoiser)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in head.cascade.named_parameters():
        if "lora_" in name or name.startswith(("inject", "rest")):
            parameter.data = torch.randn(parameter.shape, generator=generator) / 8
    folder = tmp_path_factory.mktemp("fitted")
    save_head(head, folder)
    (folder / "metrics.json").write_text("{}")
    return folder


def product(folder: Path, alpha: float) -> torch.Tensor:
    """What the LoRA of one layer adds to its weight."""
    stored = load_file(folder / CASCADE / "adapter_model.safetensors")
    a, b = (stored[f"{LAYER}.lora_{factor}.weight"].float() for factor in "AB")
    return b @ a * alpha / len(a)


def test_the_lora_keeps_its_largest_singular_values(fitted, tmp_path):
    compact(head=fitted, out=tmp_path / "small", model=BASE, rank=KEPT)
    u, s, v = torch.linalg.svd(product(fitted, ALPHA), full_matrices=False)
    wanted = u[:, :KEPT] * s[:KEPT] @ v[:KEPT]
    found = product(tmp_path / "small", KEPT * ALPHA / RANK)
    assert (found - wanted).norm() / wanted.norm() < 0.01  # of bfloat16
    denoiser = models.load(BASE, head=str(tmp_path / "small"), device="cpu")
    assert (denoiser.head.cascade.config.rank, denoiser.head.cascade.config.alpha) == (KEPT, KEPT * ALPHA // RANK)
    whole = models.load(BASE, head=str(fitted), device="cpu").head.cascade
    torch.testing.assert_close(denoiser.head.cascade.inject.weight, whole.inject.weight, rtol=0.01, atol=0)
    torch.testing.assert_close(denoiser.head.cascade.rest.bias, whole.rest.bias, rtol=0, atol=0)


def test_matrices_are_halved_and_everything_else_is_there(fitted, tmp_path):
    compact(head=fitted, out=tmp_path, model=BASE)
    assert (tmp_path / "metrics.json").read_text() == "{}"
    for file in tmp_path.rglob("*.safetensors"):
        before = load_file(fitted / file.relative_to(tmp_path))
        for name, tensor in load_file(file).items():
            halved = tensor.ndim > 1
            assert tensor.dtype == (torch.bfloat16 if halved else torch.float32)
            assert torch.equal(tensor.float(), before[name].bfloat16().float() if halved else before[name])
    cascade = models.load(BASE, head=str(tmp_path), device="cpu").head.cascade
    assert (cascade.config.rank, cascade.config.alpha) == (RANK, ALPHA)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rank": RANK}, "rank must be below that of the head's cascade, got 6 with rank 6"),
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"out": "."}, "out must be a folder apart from head"),
        ({"out": ".."}, "out must be a folder apart from head"),
        ({"out": "small"}, "out must be a folder apart from head"),
        ({"head": "nowhere"}, "head must be a folder with head.safetensors, got nowhere"),
    ],
)
def test_bad_input_is_one_sentence(fitted, tmp_path, capsys, change, sentence):
    out = fitted / change["out"] if "out" in change else tmp_path / "small"
    given = [f"--head={change.get('head', fitted)}", f"--out={out}", f"--model={BASE}"]
    with pytest.raises(SystemExit) as stop:
        run(compact, [*given, *([f"--rank={change['rank']}"] if "rank" in change else [])])
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "small" / "head.safetensors").exists()
    assert (fitted / "head.safetensors").is_file()


def test_what_lies_in_the_folder_already_stays(fitted, tmp_path):
    """Weights that are not the head's are not rounded, and a head that is there is not written over."""
    stranger = tmp_path / "other.safetensors"
    save_file({"weight": torch.full((2, 2), 1 / 3)}, stranger)
    compact(head=fitted, out=tmp_path, model=BASE)
    assert load_file(stranger)["weight"].dtype == torch.float32
    assert all(file.stat().st_mode & 0o777 == 0o644 for file in (tmp_path / CASCADE).glob("*.safetensors"))
    with pytest.raises(ValueError, match="out must be a folder without a head"):
        compact(head=fitted, out=tmp_path, model=BASE)


def test_a_head_without_cascade_has_nothing_to_cut(tmp_path):
    denoiser = models.load(BASE, device="cpu")
    save_head(ScoringHead(HeadConfig("linear", NAMES), denoiser), tmp_path / "plain")
    with pytest.raises(ValueError, match="got 2 with no cascade"):
        compact(head=tmp_path / "plain", out=tmp_path / "small", model=BASE, rank=2)
