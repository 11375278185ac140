"""On a GPU: the checkpoint's own dtype, the same numbers, taps and caches that change no bit; see test_cuda_engine.py too."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import models
from decoding import generate, generate_many

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("default::DeprecationWarning"),  # the compiler of torch 2.11 warns of torch's own
    pytest.mark.filterwarnings("default::UserWarning"),  # and of what it leaves out
]


@pytest.fixture(params=["float32", "bfloat16"])
def denoiser(golden, tmp_path, request):
    """The golden checkpoint, stored in this dtype and loaded without naming one."""
    weights = load_file(golden.folder / "model.safetensors")
    dtype = getattr(torch, request.param)
    save_file({name: t.to(dtype) for name, t in weights.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(json.loads((golden.folder / "config.json").read_text())))
    denoiser = models.load(tmp_path)
    assert {(p.dtype, p.device.type) for p in denoiser.parameters()} == {(dtype, "cuda")}
    return denoiser


@pytest.mark.parametrize("padding", ["", "_left", "_right"])
def test_logits_and_taps(golden, denoiser, padding):
    tokens = golden.tensors["input_ids" + padding].cuda()
    mask = golden.tensors.get("attention_mask" + padding)
    mask = None if mask is None else mask.bool().cuda()
    expected = golden.denoiser.logits(tokens.cpu(), None if mask is None else mask.cpu())
    plain = denoiser(tokens, attention_mask=mask)
    assert torch.equal(denoiser(tokens, attention_mask=mask, taps=(0, 1)).logits, plain.logits)
    known = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
    tolerance = 1e-3 if plain.logits.dtype == torch.float32 else 0.5
    difference = plain.logits.view(expected.shape).float().cpu() - expected
    assert difference[known.cpu()].abs().max() < tolerance


@pytest.mark.parametrize("mode", ["prefix", "dual"])
def test_cached_logits(golden, denoiser, mode):
    tokens = golden.tensors["input_ids"].cuda()
    tokens[:, 8:] = denoiser.mask_id
    rows = torch.zeros_like(tokens, dtype=torch.bool)
    rows[0, 8:16] = rows[1, 12:24] = True
    whole = denoiser(tokens, rows=rows).logits
    cached = denoiser.with_cache(mode)
    flags = torch.ones(2, dtype=torch.bool, device="cuda")
    assert torch.equal(cached(tokens, rows=rows, refresh=flags).logits, whole)
    again = cached(tokens, rows=rows, refresh=~flags, taps=(0, 1)).logits
    assert torch.equal(again, cached(tokens, rows=rows, refresh=~flags).logits)
    assert (again - whole).abs().max() < (1e-3 if whole.dtype == torch.float32 else 0.2)


@pytest.mark.parametrize("use_cache", ["none", "dual"])
@pytest.mark.parametrize("policy", ["threshold", "risk-sum", "ete", "lopa"])
def test_the_engine_writes_what_the_plain_path_writes(golden, policy, use_cache):
    options = {"policy": policy, "gen_length": 16, "block_length": 8, "use_cache": use_cache}
    plain, graphs = (
        models.load(golden.folder, engine=kind, device="cuda", dtype="float32") for kind in ("plain", "graphs")
    )
    tokens = torch.randint(3, 40, (3, 6), generator=torch.Generator().manual_seed(0)).cuda()
    others = (tokens + 1, tokens[:, 2:], tokens.tolist())
    for batch in (tokens, tokens[:1], tokens, *others):  # a new shape, another, and the first one captured and replayed
        ours, theirs = (generate(one, batch, **options) for one in (graphs, plain))
        assert torch.equal(ours.sequences, theirs.sequences)
        assert torch.equal(ours.rounds, theirs.rounds)
    assert graphs.engine.fallbacks == 0
    assert graphs.engine.graphs.captured > 0


@pytest.mark.parametrize("use_cache", ["none", "dual"])
def test_rows_that_join_a_batch_on_the_engine(golden, use_cache):
    plain, graphs = (
        models.load(golden.folder, engine=kind, device="cuda", dtype="float32") for kind in ("plain", "graphs")
    )
    tokens = torch.randint(3, 40, (10, 6), generator=torch.Generator().manual_seed(0)).tolist()
    options = {"gen_length": [16, 8] * 5, "block_length": 8, "batch_size": 3, "use_cache": use_cache, "threshold": 0.6}
    for prompts in (tokens, tokens[::-1], tokens[1:]):  # begun, captured, replayed
        ours, theirs = (
            [answer.row.ids for answer in generate_many(one, prompts, "threshold", **options)]
            for one in (graphs, plain)
        )
        assert ours == theirs


def test_ids_and_their_mask_on_two_devices(golden):
    graphs = models.load(golden.folder, engine="graphs", device="cuda", dtype="float32")
    ids, mask = torch.tensor([[0, 5, 9, 7], [4, 3, 8, 6]]), torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    made = [
        generate(graphs, a, "threshold", attention_mask=b, gen_length=16, block_length=8).sequences
        for a, b in ((ids, mask), (ids.cuda(), mask), (ids, mask.cuda()), (ids.cuda(), mask.tolist()))
    ]
    assert all(one.is_cuda and torch.equal(one, made[0]) for one in made)
