"""Decodings equal the recorded ones of the authors' code: every token, every canvas on the way, the number of forwards."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import pad

from decoding.loop import decode
from decoding.policies.quota import DreamQuota, Quota
from decoding.policies.threshold import Threshold
from decoding.sampling import Sampling
from decoding.state import start

GEN_LENGTH = 16
LLADA = ["gen_s16_b16", "gen_s8_b16", "gen_s16_b4", "gen_s8_b8", "gen_s4_b16"]
FAST = ["fast_none_quota", "fast_none_th"]
ORDERS = {"maskgit_plus": "confidence", "topk_margin": "margin", "entropy": "entropy"}
DREAM = [f"gen_{order}_s{steps}" for order in ORDERS for steps in (16, 8, 4)]


def run(golden, policy, block_length):
    """The canvas before every forward, the final one, and the counts."""
    canvases = []
    state = start(
        pad(golden.tensors["gen_prompt"], (0, GEN_LENGTH)),
        gen_length=GEN_LENGTH,
        block_length=block_length,
        mask_id=golden.denoiser.mask_id,
        eos_id=None,
    )
    sampling = Sampling(forbidden=(golden.denoiser.mask_id,))
    on_step = lambda state, reading: canvases.append(state.tokens)  # noqa: E731
    final, counts = decode(golden.denoiser, state, policy, sampling=sampling, on_step=on_step)
    return torch.cat([*canvases, final.tokens]), counts


@pytest.mark.parametrize("name", LLADA)
def test_llada_generate(goldens, name):
    golden = goldens["llada"]
    settings = golden.settings[name]
    canvases, counts = run(golden, Quota(steps=settings["steps"]), settings["block_length"])
    assert torch.equal(canvases, golden.tensors[name + "_trace"])
    assert torch.equal(canvases[-1:], golden.tensors[name])
    assert counts.nfe == settings["nfe"]


@pytest.mark.parametrize("name", FAST)
def test_fast_dllm_without_cache(goldens, name):
    golden = goldens["llada"]
    settings = golden.settings[name]
    threshold = settings["threshold"]
    policy = Quota(steps=settings["steps"]) if threshold is None else Threshold(threshold)
    canvases, counts = run(golden, policy, settings["block_length"])
    assert torch.equal(canvases[-1:], golden.tensors[name])
    assert counts.nfe == settings["nfe"]
    assert counts.token_positions.tolist() == [sum(settings["query_lengths"])]


@pytest.mark.parametrize("name", DREAM)
def test_dream_diffusion_generate(goldens, name):
    golden = goldens["dream"]
    settings = golden.settings[name]
    policy = DreamQuota(order=ORDERS[settings["alg"]], steps=settings["steps"], eps=settings["eps"])
    canvases, counts = run(golden, policy, GEN_LENGTH)
    assert torch.equal(canvases[1:], golden.tensors[name + "_trace"])
    assert torch.equal(canvases[-1:], golden.tensors[name])
    assert counts.nfe == settings["nfe"]
