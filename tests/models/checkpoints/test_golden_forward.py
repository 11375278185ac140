"""Logits and hidden states equal those of the authors' code, whatever the padding and the attention kernel."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

PADDINGS = ("", "_left", "_right")


@pytest.fixture(params=["sdpa", "eager"])
def kernel(golden, request):
    golden.denoiser.model.set_attn_implementation(request.param)
    yield request.param
    golden.denoiser.model.set_attn_implementation("sdpa")


def case(golden, padding):
    tokens = golden.tensors["input_ids" + padding]
    mask = golden.tensors.get("attention_mask" + padding)
    return tokens, None if mask is None else mask.bool()


def expected(golden, padding, mask):
    """Row i for position i, and where the reference defines it: the row that predicts i must be no padding."""
    logits = golden.tensors["logits" + padding]
    known = torch.ones(logits.shape[:2], dtype=torch.bool) if mask is None else mask
    if golden.name == "llada":
        return logits, known
    previous = torch.cat([known[:, :1], known[:, :-1]], 1)
    return torch.cat([logits[:, :1], logits[:, :-1]], 1), known & previous


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.usefixtures("kernel")
def test_logits(golden, padding, equal_up_to_rounding):
    tokens, mask = case(golden, padding)
    logits, known = expected(golden, padding, mask)
    assert known.sum() > 30
    equal_up_to_rounding(golden.denoiser.logits(tokens, mask)[known], logits[known])


@pytest.mark.usefixtures("kernel")
def test_hidden_states(golden, equal_up_to_rounding):
    tokens, last = golden.tensors["input_ids"], []
    handle = golden.denoiser.final_norm.register_forward_hook(lambda _, inputs, output: last.append(output))
    prediction = golden.denoiser(tokens, taps=(0, 1))
    handle.remove()
    first, second, final = golden.tensors["hidden_states"]
    if golden.name == "dream":
        final = torch.cat([final[:, :1], final[:, :-1]], 1)
    equal_up_to_rounding(prediction.taps[0].hidden, first)
    equal_up_to_rounding(prediction.taps[1].hidden, second)
    equal_up_to_rounding(last[0].view_as(final), final)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.usefixtures("kernel")
def test_logits_are_the_same_bits_with_taps(golden, padding):
    tokens, mask = case(golden, padding)
    plain = golden.denoiser(tokens, attention_mask=mask)
    for taps in ((0,), (1,), (0, 1)):
        assert torch.equal(golden.denoiser(tokens, attention_mask=mask, taps=taps).logits, plain.logits)


@pytest.mark.parametrize("padding", PADDINGS)
def test_a_tap_holds_all_that_its_block_attends_to(golden, padding, equal_up_to_rounding):
    """Block 0 done by hand from its tap gives the input of block 1."""
    tokens, mask = case(golden, padding)
    first, second = golden.denoiser(tokens, attention_mask=mask, taps=(0, 1)).taps
    block: torch.nn.Module = golden.denoiser.blocks[0]
    query = block.self_attn.q_proj(block.input_layernorm(first.hidden)).unflatten(-1, (-1, 16)).transpose(1, 2)
    a, b = query.chunk(2, -1)
    query = query * first.cos[:, None] + torch.cat([-b, a], -1) * first.sin[:, None]
    attended = scaled_dot_product_attention(
        query, first.keys, first.values, attn_mask=first.context[:, None, None], enable_gqa=True
    )
    hidden = first.hidden + block.self_attn.o_proj(attended.transpose(1, 2).flatten(2))
    hidden = hidden + block.mlp(block.post_attention_layernorm(hidden))
    equal_up_to_rounding(second.hidden, hidden)
    assert first.keys.shape[1] == golden.denoiser.model.config.num_key_value_heads


@pytest.mark.parametrize("padding", PADDINGS)
def test_rows_pick_their_own_positions_in_order(golden, padding, equal_up_to_rounding):
    tokens, mask = case(golden, padding)
    rows = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    prediction = golden.denoiser(tokens, attention_mask=mask, rows=rows)
    everything = golden.denoiser.logits(tokens, mask)
    equal_up_to_rounding(prediction.logits, everything[rows])
    assert torch.equal(prediction.rows, rows)
    assert prediction.positions.tolist() == [24, 24] if mask is None else mask.sum(-1).tolist()


def test_a_left_padded_row_is_the_row_alone(golden, equal_up_to_rounding):
    tokens, mask = case(golden, "_left")
    together = golden.denoiser.logits(tokens, mask)
    for row in range(2):
        alone = golden.denoiser.logits(tokens[row : row + 1, mask[row]])
        equal_up_to_rounding(together[row, mask[row]], alone[0])


def test_a_later_token_changes_an_earlier_prediction(golden):
    tokens = golden.tensors["input_ids"]
    other = tokens.clone()
    other[:, -2] = (other[:, -2] + 1) % 200
    assert (golden.denoiser.logits(tokens) - golden.denoiser.logits(other))[:, 3].abs().max() > 1e-3
