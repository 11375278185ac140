"""The cascade beside the golden models: unfitted it repeats the forward; fitted it hears what is committed, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import models
from decoding.features import NAMES
from decoding.reading import read
from decoding.sampling import Sampling
from models.heads.cascade import Cascade, CascadeConfig
from models.heads.config import HeadConfig
from models.heads.scoring_head import ScoringHead
from tests.models.heads.random_cascade import case, every_third, make, reading_of, say

PADDINGS = ("", "_left", "_right")
pytestmark = pytest.mark.filterwarnings("ignore:.*(LeafSpec|enable_nested_tensor)")


def unmoved(reading, left):
    top = reading.top_log_probs[left]
    return torch.cat([top, (1 - top.exp().sum(-1, keepdim=True)).log()], -1)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("blocks", [1, 2])
def test_unfitted_it_says_what_the_forward_said_whatever_is_committed(golden, padding, blocks):
    cascade = make(golden, blocks=blocks)
    reading = reading_of(golden, cascade, *case(golden, padding))
    for committed in (torch.zeros_like(reading.rows), every_third(reading.rows)):
        left = reading.rows & ~committed
        foretold = say(cascade, reading, committed)
        assert foretold.shape == (int(left.sum()), 6)
        torch.testing.assert_close(foretold, unmoved(reading, left), atol=1e-4, rtol=1e-4)


def test_the_base_keeps_its_bits_while_it_is_fitted(golden):
    tokens, mask, rows = case(golden, "_left")
    before = golden.denoiser(tokens, attention_mask=mask, rows=rows).logits
    cascade = make(golden, seed=0)
    reading = reading_of(golden, cascade, tokens, mask, rows)
    say(cascade, reading, every_third(rows)).sum().backward()
    own = {name for name, p in cascade.named_parameters() if p.requires_grad}
    assert all(p.grad is not None for name, p in cascade.named_parameters() if name in own)
    assert {name.split(".")[0] for name in own} == {"stream", "inject", "rest"}
    assert sum("k_proj.lora_A" in name or "v_proj.lora_A" in name for name in own) == 2
    assert all(p.grad is None for p in golden.denoiser.parameters())
    assert torch.equal(golden.denoiser(tokens, attention_mask=mask, rows=rows).logits, before)


@pytest.mark.parametrize("blocks", [1, 2])
def test_it_hears_the_tokens_that_are_committed_and_no_others(golden, blocks):
    cascade = make(golden, blocks=blocks, seed=1)
    reading = reading_of(golden, cascade, *case(golden))
    committed = every_third(reading.rows)
    with torch.no_grad():
        foretold = say(cascade, reading, committed)
        other = say(cascade, reading, committed, torch.where(committed, (reading.token + 1) % 200, reading.token))
        same = say(cascade, reading, committed, torch.where(committed, reading.token, 7))
        none = say(cascade, reading, torch.zeros_like(committed))
    assert ((foretold - other).abs().amax(-1) > 1e-3).float().mean() > 0.8
    assert torch.equal(foretold, same)
    left = (reading.rows & ~committed)[reading.rows]
    assert (foretold - none[left]).abs().max() > 1e-3
    assert torch.allclose(foretold.exp().sum(-1), torch.ones(len(foretold)), atol=1e-5)


@pytest.mark.parametrize("padding", PADDINGS)
def test_a_row_is_told_the_same_alone_and_in_a_batch(golden, padding):
    cascade = make(golden, seed=2)
    tokens, mask, rows = case(golden, padding)
    reading = reading_of(golden, cascade, tokens, mask, rows)
    committed = every_third(rows)
    committed[0] = False  # a row that commits nothing beside rows that do
    with torch.no_grad():
        together = say(cascade, reading, committed).split((rows & ~committed).sum(-1).tolist())
        for i, expected in enumerate(together):
            one = reading_of(
                golden, cascade, tokens[i : i + 1], None if mask is None else mask[i : i + 1], rows[i : i + 1]
            )
            torch.testing.assert_close(say(cascade, one, committed[i : i + 1]), expected, atol=1e-4, rtol=1e-3)


def test_the_token_enters_at_its_own_column_and_is_read_where_its_family_predicts(golden):
    """With only the way in random: the last block's input at the committed column alone has moved."""
    cascade = make(golden)
    nn.init.normal_(cascade.inject.weight, std=0.2)
    seen = {}
    run = cascade.stream.forward

    def spy(taps, place, changed):
        seen.update(place=place, moved=(changed - taps[0].hidden[place]).abs().sum(-1) > 0)
        return run(taps, place, changed)

    cascade.stream.forward = spy
    tokens, mask, rows = case(golden)
    reading = reading_of(golden, cascade, tokens, mask, rows)
    committed = every_third(rows)
    say(cascade, reading, committed)
    moved = torch.zeros_like(rows).index_put(seen["place"], seen["moved"])
    assert torch.equal(moved, committed)
    ran = torch.zeros_like(rows).index_put(seen["place"], torch.tensor(True))
    before = 1 if golden.denoiser.shifted else 0
    predicts = torch.roll(rows & ~committed, -before, dims=1)
    assert torch.equal(ran, committed | predicts)


@pytest.mark.parametrize("name", ["blocks", "rank", "alpha"])
def test_sizes_are_at_least_one(name):
    with pytest.raises(ValueError, match=f"^{name} must be at least 1, got 0$"):
        CascadeConfig(**{name: 0})


def runs_of(golden, rows, committed):
    """Columns that run again: the committed ones, and those that the positions left are read at."""
    return committed | torch.roll(rows & ~committed, -1 if golden.denoiser.shifted else 0, dims=1)


def rerun_densely(golden, reading, committed, added, call):
    """The base itself with `added` put into the input of its last blocks, which run anew at the columns of the cascade."""
    blocks, runs = golden.denoiser.blocks, runs_of(golden, reading.rows, committed).unsqueeze(-1)

    def enter(depth):
        base = reading.taps[depth].hidden

        def hook(block, inputs):
            hidden = base + added if depth == 0 else torch.where(runs, inputs[0], base)
            return (hidden, *inputs[1:])

        return hook

    last = list(blocks)[-len(reading.taps) :]
    hooks = [block.register_forward_pre_hook(enter(depth)) for depth, block in enumerate(last)]
    try:
        return call()
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("blocks", [1, 2])
def test_it_is_the_last_blocks_of_the_base_with_the_tokens_put_into_their_input(golden, padding, blocks):
    cascade = make(golden, blocks=blocks)
    torch.manual_seed(5)
    nn.init.normal_(cascade.inject.weight, std=0.2)
    tokens, mask, rows = case(golden, padding)
    reading = reading_of(golden, cascade, tokens, mask, rows)
    committed = every_third(rows)
    left = rows & ~committed
    with torch.no_grad():
        foretold = say(cascade, reading, committed)
        embedded = golden.denoiser.token_embedding(reading.token.clamp(min=0))
        added = cascade.inject(embedded) * committed.unsqueeze(-1)
        logits = rerun_densely(
            golden,
            reading,
            committed,
            added,
            lambda: golden.denoiser(tokens, attention_mask=mask, rows=left).logits,
        )
    known = logits.gather(-1, reading.top_tokens[left]) - reading.log_normaliser[left].unsqueeze(-1)
    expected = torch.cat([known, unmoved(reading, left)[:, -1:]], -1).log_softmax(-1)
    assert (expected - unmoved(reading, left)).abs().max() > 0.05
    torch.testing.assert_close(foretold, expected, atol=1e-4, rtol=1e-4)


def test_a_candidate_that_is_none_stays_none(golden):
    cascade = make(golden, seed=6)
    reading = reading_of(golden, cascade, *case(golden))
    fewer = reading.top_log_probs.clone()
    fewer[..., 3:] = -100.0
    committed = every_third(reading.rows)
    with torch.no_grad():
        foretold = say(cascade, replace(reading, top_log_probs=fewer), committed)
        unfitted = say(make(golden), replace(reading, top_log_probs=fewer), committed)
    assert (foretold[:, 3:5] < -60).all()
    assert (foretold[:, :3] > -60).all()
    left = reading.rows & ~committed
    known = fewer[left][:, :3].exp()
    expected = torch.cat([known, torch.zeros(len(known), 2), 1 - known.sum(-1, keepdim=True)], -1)
    torch.testing.assert_close(unfitted.exp(), expected, atol=1e-5, rtol=1e-4)


def test_the_tokens_of_a_row_are_not_heard_in_another(golden):
    cascade = make(golden, blocks=2, seed=7)
    reading = reading_of(golden, cascade, *case(golden))
    committed = every_third(reading.rows)
    token = reading.token.clone()
    token[0] = (token[0] + 1) % 200
    counts = (reading.rows & ~committed).sum(-1).tolist()
    with torch.no_grad():
        before = say(cascade, reading, committed).split(counts)
        after = say(cascade, reading, committed, token).split(counts)
    assert not torch.allclose(before[0], after[0], atol=1e-3)
    assert len(counts) > 1
    assert all(torch.equal(one, two) for one, two in zip(before[1:], after[1:], strict=True))


def test_with_all_committed_nothing_is_left_to_say(golden):
    cascade = make(golden, seed=8)
    reading = reading_of(golden, cascade, *case(golden))
    assert say(cascade, reading, reading.rows).shape == (0, 6)


def test_taps_do_not_touch_the_logits_of_the_base(golden):
    tokens, mask, rows = case(golden, "_left")
    plain = golden.denoiser(tokens, attention_mask=mask, rows=rows).logits
    for blocks in (1, 2):
        taps = make(golden, blocks=blocks, seed=9).taps
        assert torch.equal(golden.denoiser(tokens, attention_mask=mask, rows=rows, taps=taps).logits, plain)


@pytest.mark.parametrize(("own", "foretelling"), [(2, 1), (1, 2)])
def test_head_and_cascade_read_their_own_blocks_off_common_taps(golden, own, foretelling):
    config = HeadConfig("lora", NAMES, blocks=own, rank=2, width=16, base=golden.denoiser.fingerprint())
    head = ScoringHead(config, golden.denoiser).eval()
    torch.manual_seed(10)
    nn.init.normal_(head.readout[-1].weight, std=0.5)
    tokens, mask, rows = case(golden)
    features = torch.zeros(*rows.shape, len(NAMES))
    features[..., NAMES.index("log_risk")] = -1.0

    def scored(taps):
        prediction = golden.denoiser(tokens, attention_mask=mask, rows=rows, taps=taps)
        return head(features, rows, tokens, prediction.taps).risk_logit

    with torch.no_grad():
        alone = scored(head.taps)
        head.cascade = make(golden, blocks=foretelling, seed=10)
        count = len(golden.denoiser.blocks)
        assert head.taps_ahead == (count - 2, count - 1)
        assert torch.equal(scored(head.taps_ahead), alone)
        narrow, wide = (reading_of(golden, head.cascade, tokens, mask, rows, t) for t in (None, head.taps_ahead))
        committed = every_third(rows)
        assert torch.equal(say(head.cascade, narrow, committed), say(head.cascade, wide, committed))


def test_a_fold_says_the_same_beside_a_base_that_stays_as_it_was_and_ends_with_training(golden):
    cascade, (tokens, mask, rows) = make(golden, blocks=2, seed=11), case(golden)
    with torch.no_grad():
        reading = reading_of(golden, cascade, tokens, mask, rows)
        apart, names = say(cascade, reading, every_third(rows)), cascade.state_dict().keys()
        before = {name: p.clone() for name, p in golden.denoiser.named_parameters()}
        folded = say(cascade.fold().eval(), reading, every_third(rows))
    assert not any("lora" in name for name, _ in cascade.folded.named_parameters())
    torch.testing.assert_close(folded, apart, atol=1e-4, rtol=1e-4)
    assert cascade.state_dict().keys() == names
    assert all(torch.equal(p, before[name]) for name, p in golden.denoiser.named_parameters())
    assert {p.dtype for p in cascade.double().folded.parameters()} == {torch.float64}
    cascade.float().load_state_dict(cascade.state_dict())
    assert cascade.folded is None
    assert not cascade.train().fold().training
    assert cascade.train().folded is None
    loss = say(cascade, reading, every_third(rows)).sum()
    loss.backward()
    assert any(p.grad is not None and p.grad.any() for n, p in cascade.stream.named_parameters() if "lora" in n)


def test_it_runs_and_learns_beside_a_base_in_bfloat16(golden):
    base = models.load(golden.folder, device="cpu", dtype=torch.bfloat16)
    cascade = Cascade(CascadeConfig(blocks=2, rank=4), base)
    tokens, mask, rows = case(golden, "_left")
    with torch.no_grad():
        reading = read(base(tokens, attention_mask=mask, rows=rows, taps=cascade.taps), Sampling(forbidden=(250,)))
    said = say(cascade, reading, every_third(rows))
    assert said.dtype == torch.float32
    expected, tolerance = unmoved(reading, rows & ~every_third(rows)).exp(), 8 * torch.finfo(torch.bfloat16).eps
    torch.testing.assert_close(said.exp(), expected, atol=tolerance * expected.max().item(), rtol=0)
    said[:, 0].sum().backward()
    assert cascade.inject.weight.grad.abs().max() > 0
