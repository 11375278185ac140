"""A model that is loaded already: native, or of the authors' own classes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2ForCausalLM

import models
from models.checkpoints.families import CheckpointError


def remote(golden, **changes):
    """What an object of the authors' class shows: a config and a state dict in published names."""
    config = json.loads((golden.folder / "config.json").read_text()) | changes
    state = load_file(golden.folder / "model.safetensors")
    return SimpleNamespace(config=SimpleNamespace(to_dict=lambda: config), state_dict=lambda: state)


def test_a_native_model_shares_its_weights(golden):
    model = golden.denoiser.model
    assert isinstance(model, LlamaForCausalLM if golden.name == "llada" else Qwen2ForCausalLM)
    wrapped = models.wrap(model, mask_id=250, eos_id=251)
    tokens = golden.tensors["input_ids"]
    assert wrapped.model is model
    assert torch.equal(wrapped.logits(tokens), golden.denoiser.logits(tokens))
    assert (wrapped.mask_id, wrapped.eos_id, wrapped.shifted) == (250, 251, golden.name == "dream")


def test_a_causal_native_model_is_read_in_both_directions(golden):
    """And its own config, mode and gradients are left alone."""
    config = golden.denoiser.model.config
    model = type(golden.denoiser.model)(type(config)(**(config.to_dict() | {"is_causal": True})))
    model.load_state_dict(golden.denoiser.model.state_dict())
    model.train()
    with pytest.warns(UserWarning, match="does not say is_causal=False: it is read in both directions") as caught:
        wrapped = models.wrap(model, mask_id=250)
    assert len(caught) == 1
    tokens = golden.tensors["input_ids"]
    assert torch.equal(wrapped.logits(tokens), golden.denoiser.logits(tokens))
    assert model.config.is_causal
    assert model.training
    assert all(p.requires_grad for p in model.parameters())


def test_the_authors_object_is_put_on_native_layers_without_a_copy(golden):
    object_ = remote(golden)
    wrapped = models.wrap(object_)
    tokens = golden.tensors["input_ids"]
    assert torch.equal(wrapped.logits(tokens), golden.denoiser.logits(tokens))
    stored = {tensor.data_ptr() for tensor in object_.state_dict().values()}
    assert {p.data_ptr() for p in wrapped.parameters()} == stored
    assert (wrapped.mask_id, wrapped.eos_id) == (250, 251)


def test_the_shift_can_be_said(goldens, equal_up_to_rounding):
    golden = goldens["llada"]
    shifted = models.wrap(golden.denoiser.model, mask_id=250, shifted=True)
    tokens = golden.tensors["input_ids"]
    equal_up_to_rounding(shifted.logits(tokens)[:, 1:], golden.denoiser.logits(tokens)[:, :-1])


def test_a_native_model_without_a_mask_token_is_refused():
    sizes = {"vocab_size": 32, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2))
    with pytest.raises(CheckpointError, match="mask_id must be given"):
        models.wrap(model)


@pytest.mark.parametrize(("changes", "found"), [({"model_type": "gpt2"}, "gpt2"), ({"alibi": True}, "alibi")])
def test_an_object_outside_the_families_is_refused(goldens, changes, found):
    with pytest.raises(CheckpointError, match=found):
        models.wrap(remote(goldens["llada"], **changes))


def test_an_adapter_still_on_is_refused(goldens):
    model = remote(goldens["llada"])
    model.peft_config = {}
    with pytest.raises(CheckpointError, match="must be merged first"):
        models.wrap(model)


def test_torch_is_not_imported_before_a_name_is_used():
    code = "import sys, models; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
