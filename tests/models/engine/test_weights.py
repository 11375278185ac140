"""Fused weights are the model's own: views, the same numbers, and read again where they moved."""

from dataclasses import replace

import pytest
import torch

import models
from models.engine.graphs import Graphs
from models.engine.versions import Versions
from models.engine.weights import fuse, read_block, version_of
from models.heads.cascade import CascadeConfig


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


@pytest.mark.parametrize("part", ["lm_head", "final_norm", "token_embedding"])
def test_weights_outside_the_blocks_are_seen_to_change(fresh, part):
    fresh.use_engine("graphs")
    fresh.engine._read_weights()
    fresh.engine._sessions["a batch"] = "its buffers"
    fresh.engine._read_weights()
    assert fresh.engine._sessions
    getattr(fresh, part).weight.data = getattr(fresh, part).weight.data.clone()
    fresh.engine._read_weights()
    assert not fresh.engine._sessions


class Part(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.mean = torch.nn.Parameter(torch.ones(2)), torch.nn.Buffer(torch.zeros(2))
        self.config = CascadeConfig(blocks=1, base="x")
        self.__dict__["folded"] = torch.nn.Linear(1, 1)


@pytest.mark.parametrize("version", [version_of, Versions().of], ids=["walk", "number"])
def test_the_version_of_a_head_covers_its_cascade_buffers_config_and_folded_copy(version):
    head = Part()
    head.inner = Part()
    changes = [
        lambda: head.mean.add_(1),
        lambda: setattr(head.weight, "data", torch.ones(2)),
        lambda: setattr(head.inner, "weight", torch.nn.Parameter(torch.ones(2))),
        lambda: setattr(head, "inner", Part()),
        lambda: setattr(head, "more", torch.nn.Linear(1, 1)),
        lambda: head.inner.folded.weight.fill_(5.0),
        lambda: head.inner.weight.add_(1),
        lambda: setattr(head.inner, "config", replace(head.inner.config, foretold=(0.5,), seen=(0.6,))),
        lambda: setattr(head, "config", replace(head.config, blocks=2)),
        lambda: head.inner.__dict__.update(folded=torch.nn.Linear(1, 1)),
        lambda: head.inner.__dict__.update(folded=None),
    ]
    seen = [version(head)]
    assert version(head) == seen[0]
    for change in changes:
        with torch.no_grad():
            change()
        seen.append(version(head))
        assert seen[-1] != seen[-2]


def test_a_config_that_is_as_before_keeps_the_number():
    part, versions = Part(), Versions()
    before = versions.of(part)
    part.config = replace(part.config)
    assert versions.of(part) == before
    assert versions.of(Part()) != before


def test_what_could_not_be_captured_is_tried_anew_once_it_is_forgotten():
    graphs = Graphs(torch.device("cpu"), capture=True)
    graphs._refused = {("a", 1), ("b", 1)}
    graphs.forget(lambda key: key[0] == "a")
    assert graphs._refused == {("b", 1)}
