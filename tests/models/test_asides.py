"""Shadow rows see all but their own position and are seen by none; attention is that of the native layers."""

import pytest
import torch

import models
from models.denoiser import Denoiser
from models.toys.toy import GroupDenoiser

TOKENS = torch.tensor([[5, 6, 7, 8, 1, 9, 1, 10], [1, 5, 5, 6, 1, 7, 8, 1]])
SHADOWS = torch.tensor([[4, 5, 6, 7], [4, 5, 6, 7]])


@pytest.fixture(scope="module")
def shallow(tmp_path_factory, write_tiny):
    return models.load(write_tiny(tmp_path_factory.mktemp("shallow")), device="cpu")


@pytest.fixture(scope="module")
def deep(tmp_path_factory, write_tiny):
    return models.load(write_tiny(tmp_path_factory.mktemp("deep"), layers=3), device="cpu")


def dense(prediction):
    return prediction.logits.view(*prediction.rows.shape, -1)


def test_masked_positions_are_predicted_as_without_shadow_rows(deep, equal_up_to_rounding):
    shadowed, plain = dense(deep.shadowed(TOKENS, SHADOWS)), deep.logits(TOKENS)
    masked = TOKENS == deep.mask_id
    equal_up_to_rounding(shadowed[masked], plain[masked])
    assert not torch.allclose(shadowed[0, 5], plain[0, 5])


def test_a_shadow_row_is_blind_to_its_own_token_alone(shallow):
    """In one layer; deeper rows see those that saw it, as in the published decoder."""
    changed = TOKENS.clone()
    changed[:, 5] = 11
    before, after = dense(shallow.shadowed(TOKENS, SHADOWS)), dense(shallow.shadowed(changed, SHADOWS))
    assert torch.equal(before[:, 5], after[:, 5])
    assert not torch.allclose(before[0, 7], after[0, 7])


def test_in_one_layer_a_single_shadow_row_predicts_as_if_its_position_were_masked(shallow, equal_up_to_rounding):
    alone = torch.tensor([[5], [5]])
    masked = TOKENS.clone()
    masked[:, 5] = shallow.mask_id
    shadowed, plain = dense(shallow.shadowed(TOKENS, alone)), shallow.logits(masked)
    equal_up_to_rounding(shadowed[:, 5], plain[:, 5])


def test_padding_changes_nothing_and_shadow_rows_are_counted(deep, equal_up_to_rounding):
    padded = torch.nn.functional.pad(TOKENS, (2, 0), value=1)
    mask = torch.ones_like(padded, dtype=torch.bool)
    mask[:, :2] = False
    prediction = deep.shadowed(padded, SHADOWS + 2, attention_mask=mask, rows=mask)
    equal_up_to_rounding(prediction.logits, deep.shadowed(TOKENS, SHADOWS).logits)
    assert prediction.positions.tolist() == [12, 12]


def test_attention_is_the_mean_over_heads_and_the_last_blocks(deep, equal_up_to_rounding):
    seen = []
    hooks = [b.self_attn.register_forward_hook(lambda _, __, out: seen.append(out[1].mean(1))) for b in deep.blocks]
    was, deep.model.config._attn_implementation = deep.model.config._attn_implementation, "eager"
    deep.logits(TOKENS)
    deep.model.config._attn_implementation = was
    for hook in hooks:
        hook.remove()
    found = deep.attended(TOKENS, 2)
    equal_up_to_rounding(found.attention, (seen[1] + seen[2]) / 2)
    assert torch.equal(found.logits, deep(TOKENS).logits)
    equal_up_to_rounding(deep.attended(TOKENS, 9).attention, sum(seen) / 3)


def test_padding_gives_and_gets_no_attention(deep, equal_up_to_rounding):
    padded = torch.nn.functional.pad(TOKENS, (2, 0), value=1)
    mask = torch.ones_like(padded, dtype=torch.bool)
    mask[:, :2] = False
    found = deep.attended(padded, 1, attention_mask=mask).attention
    equal_up_to_rounding(found[:, 2:, 2:], deep.attended(TOKENS, 1).attention)
    assert not found[:, :2].any()
    assert not found[:, :, :2].any()


def test_a_model_without_them_is_refused_in_a_sentence():
    class Bare(Denoiser):
        def forward(self, tokens, **kwargs):
            raise NotImplementedError

    with pytest.raises(ValueError, match=r"^the model must have shadow rows for this policy, got a Bare$"):
        Bare().shadowed(TOKENS, SHADOWS)
    with pytest.raises(ValueError, match=r"^the model must have attention for this policy, got a Bare$"):
        Bare().attended(TOKENS, 1)


def test_a_toy_predicts_a_revealed_position_from_the_others():
    toy, tokens = GroupDenoiser(2, 2), torch.tensor([[1, 2, 0, 0]])
    blind = toy.shadowed(tokens, torch.tensor([[0, 1, 2, 3]])).logits.view(1, 4, -1).softmax(-1)
    assert blind[0, 0, :2].tolist() == pytest.approx([0.5, 0.5])  # its partner is masked
    assert blind[0, 1, 1].item() == pytest.approx(1, abs=1e-5)  # masked, beside a 1
    assert blind[0, 2, 0].item() == pytest.approx(1, abs=1e-5)  # its partner says 0
