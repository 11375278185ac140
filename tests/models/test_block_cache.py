"""Block caches: Fast-dLLM's decodings, and what is read, shared and refreshed."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import pad

from decoding.loop import decode
from decoding.policies.ete import BeamETE
from decoding.policies.quota import Quota
from decoding.policies.threshold import Threshold
from decoding.sampling import Sampling
from decoding.state import start

MODES = ("prefix", "dual")


@pytest.mark.parametrize("rule", ["quota", "th"])
@pytest.mark.parametrize("mode", MODES)
def test_fast_dllm_with_cache(goldens, mode, rule):
    golden, name = goldens["llada"], f"fast_{mode}_{rule}"
    settings = golden.settings[name]
    threshold = settings["threshold"]
    denoiser = golden.denoiser.with_cache(mode)
    lengths: list[int] = []
    denoiser.model.model.layers[0].register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    final, counts = decode(
        denoiser,
        begin(denoiser, golden.tensors["gen_prompt"], block_length=settings["block_length"]),
        Quota(steps=settings["steps"]) if threshold is None else Threshold(threshold),
        sampling=Sampling(forbidden=(denoiser.mask_id,)),
    )
    assert torch.equal(final.tokens, golden.tensors[name])
    assert counts.nfe == settings["nfe"]
    assert lengths == settings["query_lengths"]
    assert counts.token_positions.tolist() == [sum(lengths)]


def begin(denoiser, prompts, *, block_length=8, gen_length=16, **settings):
    tokens = pad(prompts, (0, gen_length))
    ids = {"mask_id": denoiser.mask_id, "eos_id": None}
    return start(tokens, gen_length=gen_length, block_length=block_length, **ids, **settings)


def canvas(golden, opened):
    """The golden prompts, left padded, with a canvas of 16 of which the rows ask for 8 from `opened` on."""
    mask = golden.tensors["attention_mask_left"].bool()
    tokens = golden.tensors["input_ids_left"].clone()
    tokens[:, -16:] = golden.denoiser.mask_id
    rows = torch.zeros_like(mask)
    for row, first in enumerate(opened):
        rows[row, first : first + 8] = True
    return tokens, mask, rows


def yes(*flags):
    return torch.tensor(flags)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("opened", [(8, 8), (8, 16)])
def test_a_cached_forward_on_unchanged_tokens_is_the_whole_forward(golden, mode, opened, equal_up_to_rounding):
    tokens, mask, rows = canvas(golden, opened)
    denoiser = golden.denoiser.with_cache(mode)
    whole = golden.denoiser(tokens, attention_mask=mask, rows=rows, taps=(0, 1))
    first = denoiser(tokens, attention_mask=mask, rows=rows, taps=(0, 1), refresh=yes(True, True))
    again = denoiser(tokens, attention_mask=mask, rows=rows, taps=(0, 1), refresh=yes(False, False))
    assert torch.equal(first.logits, whole.logits)
    assert torch.equal(first.positions, whole.positions)
    equal_up_to_rounding(again.logits, whole.logits)
    spans = [(24 if mode == "prefix" else s + 8) - s + (golden.name == "dream") for s in opened]
    assert again.positions.tolist() == spans
    for a, b in zip(again.taps, whole.taps, strict=True):
        equal_up_to_rounding(a.hidden[rows], b.hidden[rows])
        equal_up_to_rounding(a.keys, b.keys)
        equal_up_to_rounding(a.values, b.values)
        assert (a.hidden[:, :7] == 0).all()
        assert torch.equal(a.cos, b.cos)
        assert torch.equal(a.context, b.context)


@pytest.mark.parametrize("mode", MODES)
def test_taps_do_not_change_cached_logits(golden, mode):
    tokens, mask, rows = canvas(golden, (8, 16))
    logits = []
    for taps in ((), (0, 1)):
        denoiser = golden.denoiser.with_cache(mode)
        denoiser(tokens, attention_mask=mask, rows=rows, taps=taps, refresh=yes(True, True))
        tokens[0, 9] = 7
        tokens[1, 17] = 7
        logits.append(denoiser(tokens, attention_mask=mask, rows=rows, taps=taps, refresh=yes(False, False)).logits)
        tokens[0, 9] = tokens[1, 17] = denoiser.mask_id
    assert torch.equal(*logits)


def test_what_changes_inside_the_span_is_seen_and_outside_it_is_stale(golden):
    tokens, mask, rows = canvas(golden, (8, 8))
    denoiser = golden.denoiser.with_cache("dual")
    before = denoiser(tokens, attention_mask=mask, rows=rows, taps=(1,), refresh=yes(True, True))
    tokens[:, 9] = 7
    after = denoiser(tokens, attention_mask=mask, rows=rows, taps=(1,), refresh=yes(False, False))
    fresh = golden.denoiser(tokens, attention_mask=mask, rows=rows, taps=(1,))
    assert (after.logits - before.logits).abs().max() > 1e-2
    assert torch.equal(after.taps[0].keys[:, :, 16:], before.taps[0].keys[:, :, 16:])
    assert (after.taps[0].keys[:, :, 16:] - fresh.taps[0].keys[:, :, 16:]).abs().max() > 1e-3
    assert (after.taps[0].keys[:, :, 8:16] - before.taps[0].keys[:, :, 8:16]).abs().max() > 1e-3


def test_rows_that_open_a_block_are_computed_whole_beside_rows_that_do_not(golden, equal_up_to_rounding):
    tokens, mask, rows = canvas(golden, (8, 8))
    denoiser = golden.denoiser.with_cache("dual")
    denoiser(tokens, attention_mask=mask, rows=rows, refresh=yes(True, True))
    tokens[1, 8:16] = torch.arange(8)
    rows[1] = False
    rows[1, 16:] = True
    mixed = denoiser(tokens, attention_mask=mask, rows=rows, taps=(0, 1), refresh=yes(False, True))
    whole = golden.denoiser(tokens, attention_mask=mask, rows=rows, taps=(0, 1))
    equal_up_to_rounding(mixed.logits, whole.logits)  # row 0 has not changed, row 1 is computed anew
    equal_up_to_rounding(mixed.taps[1].keys, whole.taps[1].keys)
    assert mixed.positions.tolist() == [8 + (golden.name == "dream"), int(mask[1].sum())]


def test_branches_read_the_cache_of_their_prompt(golden, equal_up_to_rounding):
    tokens, mask, rows = canvas(golden, (8, 8))
    denoiser = golden.denoiser.with_cache("dual")
    denoiser(tokens, attention_mask=mask, rows=rows, refresh=yes(True, True))
    owner = torch.tensor([1, 0, 1])
    branches = tokens[owner]
    branches[2, 9] = 7
    rows = (branches == denoiser.mask_id) & rows[owner]
    together = denoiser(branches, attention_mask=mask[owner], rows=rows, owner=owner, refresh=yes(False, False, False))
    assert (together.positions == 8 + (golden.name == "dream")).all()
    whole = golden.denoiser(branches[:2], attention_mask=mask[owner[:2]], rows=rows[:2])
    equal_up_to_rounding(together.logits[:16], whole.logits)


def test_the_chosen_branchs_cache_is_the_one_read_on(golden, equal_up_to_rounding):
    """Two branches open a block; the next canvas extends the second of them."""
    tokens, mask, rows = canvas(golden, (16, 16))
    tokens, mask, rows = tokens[:1].repeat(2, 1), mask[:1].repeat(2, 1), rows[:1].repeat(2, 1)
    tokens[0, 8:16], tokens[1, 8:16] = torch.arange(8), torch.arange(8).flip(0)
    denoiser = golden.denoiser.with_cache("dual")
    denoiser(tokens, attention_mask=mask, rows=rows, owner=torch.tensor([0, 0]), refresh=yes(True, True))
    chosen = denoiser(
        tokens[1:], attention_mask=mask[1:], rows=rows[1:], owner=torch.tensor([0]), refresh=yes(False), taps=(1,)
    )
    whole = golden.denoiser(tokens[1:], attention_mask=mask[1:], rows=rows[1:], taps=(1,))
    assert chosen.positions.tolist() == [8 + (golden.name == "dream")]
    equal_up_to_rounding(chosen.logits, whole.logits)
    equal_up_to_rounding(chosen.taps[0].keys, whole.taps[0].keys)


@pytest.mark.parametrize("change", ["revealed token", "row outside the span", "another prompt"])
def test_a_canvas_that_fits_no_snapshot_is_computed_whole(golden, change, equal_up_to_rounding):
    tokens, mask, rows = canvas(golden, (8, 8))
    denoiser = golden.denoiser.with_cache("dual")
    denoiser(tokens, attention_mask=mask, rows=rows, refresh=yes(True, True))
    owner = torch.tensor([0, 1])
    if change == "revealed token":
        tokens[0, 7] += 1
    elif change == "row outside the span":
        rows[0, 16] = True
    else:
        owner = torch.tensor([5, 1])
    again = denoiser(tokens, attention_mask=mask, rows=rows, owner=owner, refresh=yes(False, False))
    whole = golden.denoiser(tokens, attention_mask=mask, rows=rows)
    assert again.positions.tolist() == [int(mask[0].sum()), 8 + (golden.name == "dream")]
    equal_up_to_rounding(again.logits, whole.logits)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("policy", [Threshold(0.2), BeamETE(gamma=0.2, min_masks=1, branches=3, step_budget=2)])
def test_a_cached_batch_decodes_as_its_rows_alone(golden, mode, policy):
    """Also with branches and several blocks open; and it computes fewer positions than without a cache."""
    prompts = golden.tensors["input_ids_left"][:, :8]
    mask = pad(torch.tensor([[False] * 3 + [True] * 5, [True] * 8]), (0, 16), value=True)

    def run(denoiser, prompts, mask):
        state = begin(denoiser, prompts, step_budget=policy.step_budget, initial_blocks=policy.initial_blocks)
        return decode(denoiser, state, policy, attention_mask=mask, sampling=Sampling(forbidden=(250,)))

    together, counts = run(golden.denoiser.with_cache(mode), prompts, mask)
    for row, first in enumerate((3, 0)):
        alone, cost = run(golden.denoiser.with_cache(mode), prompts[row : row + 1, first:], None)
        assert torch.equal(together.tokens[row, 8:], alone.tokens[0, -16:])
        assert torch.equal(together.committed_round[row, 8:], alone.committed_round[0, -16:])
        for name in ("rounds", "sequence_forwards", "token_positions"):
            assert getattr(counts, name)[row] == getattr(cost, name)[0]
    _, plain = run(golden.denoiser, prompts, mask)
    saved = counts.token_positions / counts.sequence_forwards
    assert (saved < plain.token_positions / plain.sequence_forwards).all()


def test_a_fresh_cache_remembers_nothing_of_another_decode(golden):
    tokens, mask, rows = canvas(golden, (8, 8))
    denoiser = golden.denoiser.with_cache("dual")
    denoiser(tokens, attention_mask=mask, rows=rows, refresh=yes(True, True))
    other = denoiser.with_cache("dual")
    assert other.model is denoiser.model
    first = other(tokens, attention_mask=mask, rows=rows, refresh=yes(False, False))
    assert first.positions.tolist() == mask.sum(-1).tolist()


def test_modes(golden):
    assert golden.denoiser.with_cache("none").cache is None
    with pytest.raises(ValueError, match="use_cache must be none, prefix or dual, got 'both'"):
        golden.denoiser.with_cache("both")
