"""A scoring head in a folder: it comes back bit for bit, and a damaged or foreign one is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import models
from models.heads import side_stream
from models.heads.config import VARIANTS, HeadConfig
from models.heads.defaults import Defaults, read_defaults
from models.heads.scoring_head import ScoringHead, load_head, read_config, save_head
from tests.models.heads.random_head import NAMES, case, make_head, score

pytestmark = pytest.mark.filterwarnings("ignore:.*(LeafSpec|enable_nested_tensor)")


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_saved_head_scores_the_same_bits(golden, variant, tmp_path):
    head = make_head(golden, variant, blocks=2, seed=3)
    save_head(head, tmp_path)
    loaded = models.load(golden.folder, device="cpu", head=tmp_path)
    assert loaded.head.config == head.config == read_config(tmp_path)
    assert not loaded.head.training
    mine, _ = score(golden.denoiser, head, *case(golden, "_left"))
    theirs, _ = score(loaded, loaded.head, *case(golden, "_left"))
    assert torch.equal(mine.risk_logit, theirs.risk_logit)
    assert torch.equal(mine.gain, theirs.gain)
    assert mine.gain.any()
    assert not any(name.startswith("head") for name, _ in loaded.named_parameters())


@pytest.mark.parametrize("variant", VARIANTS)
def test_files_hold_the_adapter_and_the_head_alone(golden, variant, tmp_path):
    head = make_head(golden, variant, seed=3)
    save_head(head, tmp_path)
    adapter = {"adapter_config.json", "adapter_model.safetensors"} if variant == "lora" else set()
    assert {file.name for file in tmp_path.iterdir()} == {"head.safetensors", "checksums.json"} | adapter
    stored = load_file(tmp_path / "head.safetensors")
    if adapter:
        matrices = load_file(tmp_path / "adapter_model.safetensors")
        assert len(matrices) == 2 * len(side_stream.LORA_TARGETS)
        assert not any(".k_proj." in name or ".v_proj." in name for name in matrices)
        stored |= matrices
    trainable = sum(p.numel() for p in head.parameters() if p.requires_grad)
    assert sum(tensor.numel() for tensor in stored.values()) == trainable + 2 * len(NAMES)  # mean and spread
    block = sum(p.numel() for p in golden.denoiser.blocks[1].parameters())
    assert trainable > block if variant == "fork" else trainable < 12_000 < block


@pytest.mark.parametrize("variant", ["hidden", "lora"])
def test_the_head_of_another_base_is_refused(goldens, variant, tmp_path):
    save_head(make_head(goldens["llada"], variant), tmp_path)
    with pytest.raises(ValueError, match=r"must be used on its own base \(\w{12}\), got a base \w{12}$"):
        load_head(tmp_path, goldens["dream"].denoiser)


def damage(file, how):
    content = file.read_bytes()
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-9] if how == "cut" else b"\xff" * 40)


@pytest.mark.parametrize("how", ["gone", "cut", "garbage"])
@pytest.mark.parametrize("name", ["head.safetensors", "adapter_model.safetensors"])
def test_a_damaged_head_is_refused_in_one_sentence(goldens, tmp_path, name, how):
    save_head(make_head(goldens["llada"], "lora"), tmp_path)
    damage(tmp_path / name, how)
    with pytest.raises(ValueError, match=name) as refused:
        load_head(tmp_path, goldens["llada"].denoiser)
    assert "\n" not in str(refused.value)
    assert " must " in str(refused.value)


@pytest.mark.parametrize("change", [{"rank": 2}, {"blocks": 2}])
def test_the_adapter_of_another_head_is_refused(goldens, tmp_path, change):
    base = goldens["llada"].denoiser
    save_head(make_head(goldens["llada"], "lora"), tmp_path / "one")
    save_head(ScoringHead(replace(read_config(tmp_path / "one"), **change), base), tmp_path / "two")
    (tmp_path / "one" / "adapter_model.safetensors").replace(tmp_path / "two" / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"adapter_model.safetensors must hold the \d+ LoRA matrices of this head"):
        load_head(tmp_path / "two", base)


@pytest.mark.parametrize("how", ["missing", "more", "shape"])
def test_tensors_that_the_config_does_not_ask_for_are_refused(goldens, tmp_path, how):
    save_head(make_head(goldens["llada"], "linear"), tmp_path)
    file = tmp_path / "head.safetensors"
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    stored = load_file(file)
    changed = {"missing": {}, "more": stored | {"bias": torch.ones(2)}, "shape": stored | {"mean": torch.ones(2)}}[how]
    save_file(changed or {"mean": stored["mean"]}, file, metadata=metadata)
    with pytest.raises(
        ValueError, match=r"head.safetensors must hold the \d+ tensors of this part, got others for \w+"
    ):
        load_head(tmp_path, goldens["llada"].denoiser)


def test_a_head_without_defaults_does_not_keep_those_of_the_one_before(tmp_path):
    head = ScoringHead(HeadConfig("linear", NAMES))
    head.defaults = Defaults(rule=None, risk_bound=0.1, looks=0)
    save_head(head, tmp_path)
    assert read_defaults(tmp_path) == head.defaults
    head.defaults = None
    save_head(head, tmp_path)
    assert read_defaults(tmp_path) is None
