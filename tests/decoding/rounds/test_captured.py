"""Nothing that a GPU captures waits for the host: no number read, no size that follows from values, no list sent.

And what one decode captures the next one finds.
"""

from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import models
from decoding import generate
from decoding.names import POLICIES
from decoding.policy_by_name import make_policy
from models.engine.graphs import Graphs
from tests.decoding.policy_settings import random_head, row_of

GOLDEN = Path(__file__).parents[2] / "golden" / "llada"
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "bincount", "equal", "unique_dim", "_unique2"}
CHECKED = ({"rule": "threshold", "threshold": 0.02}, {"rule": "quota", "steps": 4}, {"rule": "learned"})
HEADED = {"learned": ({}, {"rule": "confidence"}, {"rule": "pairs"}, {"looks": 0}), "learned-ete": ({},)}


class Watch(TorchDispatchMode):
    """Notes what would wait, were the tensors on a GPU."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, called, types, given=(), named=None):
        name = called.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            one is not None and one.dtype in (torch.bool, torch.uint8) for one in given[1]
        )
        is_list = name == "lift_fresh" and given[0].ndim > 0  # a number by itself is written without being sent
        if name in WAITS or by_mask or is_list or called is torch.ops.aten.repeat_interleave.Tensor:
            self.seen.add(name)
        return called(*given, **(named or {}))


@pytest.fixture
def waits(monkeypatch):
    """What would wait in the functions that are captured."""
    watch, run = Watch(), Graphs.run

    def watched(graphs, key, compute, store=None, **how):
        with watch:
            run(graphs, key, compute, store, **how)

    monkeypatch.setattr(Graphs, "run", watched)
    return watch.seen


@pytest.fixture(scope="module")
def denoiser():
    made = models.load(GOLDEN, device="cpu", engine="graphs")
    made.put_on(random_head(made))
    return made


def decode(denoiser, policy, settings):
    needs = make_policy(policy, settings, denoiser).needs
    if needs.plain or needs.noise or needs.draws:
        pytest.skip("is not captured")
    canvas = {"gen_length": 16, "block_length": 16 if policy == "dream-quota" else 8, "use_cache": "dual"}
    generate(denoiser, [[5, 9, 77, 3], [8, 4]], policy, **canvas, **settings)


@pytest.mark.parametrize("policy", [name for name, one in POLICIES.items() if not one.head])
def test_rules_without_a_head(denoiser, waits, policy):
    decode(denoiser, policy, row_of(policy).golden)
    assert not waits


@pytest.mark.parametrize(("policy", "settings"), [(name, one) for name, some in HEADED.items() for one in some])
def test_rules_with_a_head(denoiser, waits, policy, settings):
    decode(denoiser, policy, settings)
    assert not waits


@pytest.mark.parametrize("settings", CHECKED, ids=[one["rule"] for one in CHECKED])
def test_checked_drafts(denoiser, waits, settings):
    decode(denoiser, "verified", {"canvases": 3, **settings})
    assert not waits


def test_a_list_of_forbidden_tokens(denoiser, waits):
    canvas = {"gen_length": 16, "block_length": 8, "logits_eos_inf": True, "eos_id": [3, 4, 5]}
    generate(denoiser, [[5, 9, 77, 3]], "threshold", **canvas)
    assert not waits


def test_a_frequency_of_each_token_is_sent_and_seen(denoiser, waits):
    decode(denoiser, "pc-sampler", {"background": tuple([0.01] * 256)})
    assert waits == {"lift_fresh"}


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("policy", ["threshold", "learned"])
def test_the_second_decode_replays_what_the_first_captured(monkeypatch, policy, folded):
    """Weights that the engine lays out anew in the first one would be others in the second."""
    made = models.load(GOLDEN, device="cpu", engine="graphs")
    made.put_on(random_head(made))
    if folded:
        made.head.cascade.fold()
    keys, run = [], Graphs.run

    def noted(graphs, key, *given, **named):
        keys.append(key)
        run(graphs, key, *given, **named)

    monkeypatch.setattr(Graphs, "run", noted)
    for turn in range(2):
        generate(made, [[5, 9, 77, 3], [8, 4]], policy, gen_length=16, block_length=8, use_cache="dual")
        if not turn:
            first = set(keys)
    assert set(keys) == first
