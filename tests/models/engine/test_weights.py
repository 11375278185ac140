"""Fused weights are the model's own: views, the same numbers, and read again where they moved."""

import pytest
import torch

import models
from models.engine.weights import fuse, read_block


@pytest.fixture
def fresh(golden):
    return models.load(golden.folder, device="cpu")


def test_projections_become_views_of_one_tensor_and_nothing_is_held_twice(fresh):
    before = {name: p.clone() for name, p in fresh.named_parameters()}
    held = sum(p.nbytes for p in fresh.parameters())
    fused = [read_block(block) for block in fresh.blocks]
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in fresh.parameters()}
    assert sum(storages.values()) == held
    for block, weights in zip(fresh.blocks, fused, strict=True):
        attention = block.self_attn
        parts = [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]
        assert torch.equal(weights.qkv, torch.cat(parts))
        assert all(p.untyped_storage().data_ptr() == weights.qkv.untyped_storage().data_ptr() for p in parts)
    assert all(torch.equal(before[name], p) for name, p in fresh.named_parameters())


def test_a_write_to_a_parameter_is_seen_by_the_fused_tensor(fresh):
    weights = read_block(fresh.blocks[0])
    fresh.blocks[0].mlp.up_proj.weight.data.fill_(7.0)
    assert (weights.gate_up[len(weights.gate_up) // 2 :] == 7).all()
    assert (weights.gate_up[: len(weights.gate_up) // 2] != 7).any()


def test_fusing_again_copies_nothing(fresh):
    one, two = read_block(fresh.blocks[0]), read_block(fresh.blocks[0])
    assert one.qkv.data_ptr() == two.qkv.data_ptr()


def test_fused_parameters_still_learn():
    layers = [torch.nn.Linear(3, 2, bias=False), torch.nn.Linear(3, 4, bias=False)]
    with torch.inference_mode():
        fuse([layer.weight for layer in layers])
    sum(layer(torch.ones(1, 3)).sum() for layer in layers).backward()
    assert all(layer.weight.grad is not None for layer in layers)


def test_fingerprint_and_logits_stay(golden, fresh):
    tokens = golden.tensors["input_ids"]
    for block in fresh.blocks:
        read_block(block)
    again = models.wrap(fresh.model, mask_id=fresh.mask_id, eos_id=fresh.eos_id, shifted=fresh.shifted)
    assert again.fingerprint() == golden.denoiser.fingerprint()
    assert torch.equal(fresh.logits(tokens), golden.denoiser.logits(tokens))


def test_an_unknown_engine_is_refused(golden):
    with pytest.raises(ValueError, match=r"^engine must be one of auto, plain, graphs, got 'fast'$"):
        models.load(golden.folder, device="cpu", engine="fast")
    assert models.load(golden.folder, device="cpu").engine is None
