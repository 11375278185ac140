"""A LoRA adapter folder becomes W + (alpha / r) B A, under native names and those of the authors' code."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

import models
from models.checkpoints.families import CheckpointError

REMOTE = ("q_proj", "attn_out", "ff_proj", "ff_out")  # block 1 of LLaDA's own code; the LM head is an ff_out too
NATIVE = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")
STORED = {
    "llada-remote": ("llada", [f"model.transformer.blocks.1.{name}" for name in REMOTE]),
    "llada-native": ("llada", [f"model.layers.1.{name}" for name in NATIVE]),
    "dream": ("dream", [f"model.layers.1.{name}" for name in NATIVE]),
}


def write(folder, sizes, **settings):
    """An adapter of rank 2 (3 on the first module) on modules of the given names and (out, in) sizes."""
    torch.manual_seed(0)
    tensors = {}
    for number, (module, (out, inward)) in enumerate(sizes.items()):
        rank = 2 if number else 3
        tensors[f"base_model.model.{module}.lora_A.weight"] = torch.randn(rank, inward)
        tensors[f"base_model.model.{module}.lora_B.weight"] = torch.randn(out, rank)
    leaves = sorted({name.rsplit(".")[-1] for name in sizes})
    plain = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "target_modules": leaves, "bias": "none"}
    plain["rank_pattern"] = {next(iter(sizes)).rsplit(".")[-1]: 3}
    (folder / "adapter_config.json").write_text(json.dumps(plain | settings))
    save_file(tensors, folder / "adapter_model.safetensors")
    return tensors


@pytest.mark.parametrize("case", STORED)
def test_merged_weights(goldens, tmp_path, case):
    family, stored = STORED[case]
    base = goldens[family]
    before = dict(base.denoiser.model.named_parameters())
    native = [f"model.layers.1.{name}" for name in NATIVE]
    sizes = {name: tuple(before[to + ".weight"].shape) for name, to in zip(stored, native, strict=True)}
    tensors = write(tmp_path, sizes)
    merged = models.load(base.folder, device="cpu", adapter=tmp_path)
    after = dict(merged.model.named_parameters())
    assert after.keys() == before.keys()
    for name, to in zip(stored, native, strict=True):
        down, up = (tensors[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
        expected = before[to + ".weight"] + 8 / len(down) * up @ down
        torch.testing.assert_close(after[to + ".weight"].data, expected, atol=1e-4, rtol=1e-5)
    untouched = before.keys() - {name + ".weight" for name in native}
    assert all(torch.equal(after[name], before[name]) for name in untouched)
    assert merged.fingerprint() != base.denoiser.fingerprint()


@pytest.mark.parametrize(
    ("module", "settings", "message"),
    [
        ("model.layers.7.self_attn.q_proj", {}, "must be one of the base, got 'model.layers.7"),
        (
            "model.transformer.blocks.0.att_proj",
            {},
            "must be one of the base, got 'model.transformer.blocks.0.att_proj'",
        ),
        ("model.layers.0.self_attn.q_proj", {"peft_type": "IA3"}, "peft_type of the adapter must be LORA, got 'IA3'"),
        ("model.layers.0.self_attn.q_proj", {"modules_to_save": ["lm_head"]}, "modules_to_save of the adapter"),
    ],
)
def test_what_does_not_fit_is_refused(goldens, tmp_path, module, settings, message):
    write(tmp_path, {module: (64, 64)}, **settings)
    with pytest.raises(CheckpointError, match=message):
        models.load(goldens["llada"].folder, device="cpu", adapter=tmp_path)


def test_a_folder_without_weights_is_refused(goldens, tmp_path):
    write(tmp_path, {"model.layers.0.self_attn.q_proj": (64, 64)})
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"must hold adapter_model.safetensors"):
        models.load(goldens["llada"].folder, device="cpu", adapter=tmp_path)


def test_what_peft_saves_itself_loads(goldens, tmp_path):
    """An adapter fitted by PEFT on the native model gives the same logits merged as it gives in PEFT."""
    from peft import LoraConfig, get_peft_model

    golden = goldens["dream"]
    torch.manual_seed(1)
    base = models.load(golden.folder, device="cpu")
    config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT reads an attribute that transformers renames
        adapted = get_peft_model(base.model, config)
    tokens = golden.tensors["input_ids"]
    fitted = base.logits(tokens)
    adapted.save_pretrained(tmp_path)
    assert len(load_file(tmp_path / "adapter_model.safetensors")) == 8
    merged = models.load(golden.folder, device="cpu", adapter=tmp_path)
    torch.testing.assert_close(merged.logits(tokens), fitted, atol=1e-4, rtol=1e-5)
    assert (fitted - golden.denoiser.logits(tokens)).abs().max() > 0.1


def test_half_an_adapter_is_refused(goldens, tmp_path):
    tensors = write(tmp_path, {"model.layers.0.self_attn.q_proj": (64, 64)})
    save_file({name: t for name, t in tensors.items() if "lora_A" in name}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="must hold lora_A and lora_B of every module"):
        models.load(goldens["llada"].folder, device="cpu", adapter=tmp_path)


def test_an_adapter_of_another_width_is_refused(goldens, tmp_path):
    write(tmp_path, {"model.layers.0.self_attn.q_proj": (64, 32)})
    with pytest.raises(CheckpointError, match="must fit the base"):
        models.load(goldens["llada"].folder, device="cpu", adapter=tmp_path)
