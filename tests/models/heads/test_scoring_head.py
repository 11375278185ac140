"""Scoring heads beside the golden models: the base keeps its bits, the side-stream is the base's own last blocks."""

from __future__ import annotations

import pytest
import torch
from transformers.masking_utils import create_bidirectional_mask

from models.heads import side_stream
from models.heads.config import VARIANTS, HeadConfig
from models.heads.scoring_head import ScoringHead
from tests.models.heads.random_head import NAMES, case, make_head, score

PADDINGS = ("", "_left", "_right")
pytestmark = pytest.mark.filterwarnings("ignore:.*(LeafSpec|enable_nested_tensor)")


def over(stream, taps, rows):
    """The stream's hidden states that predict `rows`."""
    return stream(taps, side_stream.predicting(taps[0], rows))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_base_keeps_its_bits_with_a_head_attached_run_and_trained(golden, variant):
    tokens, mask, rows = case(golden, "_left")
    before = golden.denoiser(tokens, attention_mask=mask, rows=rows).logits
    weights = {name: value.clone() for name, value in golden.denoiser.named_parameters()}
    head = make_head(golden, variant, seed=0).train()
    optimizer = torch.optim.AdamW([p for p in head.parameters() if p.requires_grad], lr=0.1)
    scores, _ = score(golden.denoiser, head, tokens, mask, rows)
    (scores.gain.sum() + scores.risk_logit.sum()).backward()
    assert torch.equal(golden.denoiser(tokens, attention_mask=mask, rows=rows, taps=head.taps).logits, before)
    moved = [(p, p.clone()) for p in head.parameters() if p.requires_grad]
    optimizer.step()
    assert any(not torch.equal(new, old) for new, old in moved)
    assert torch.equal(golden.denoiser(tokens, attention_mask=mask, rows=rows, taps=head.taps).logits, before)
    assert all(torch.equal(value, weights[name]) for name, value in golden.denoiser.named_parameters())
    assert all(p.grad is None and not p.requires_grad for p in golden.denoiser.parameters())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("padding", PADDINGS)
def test_an_untrained_head_is_the_confidence(golden, variant, padding, equal_up_to_rounding):
    scores, reading = score(golden.denoiser, make_head(golden, variant), *case(golden, padding))
    rows = reading.rows
    assert rows.sum() > 10
    equal_up_to_rounding(scores.risk[rows], 1 - reading.confidence[rows])
    assert not scores.gain.any()
    assert not scores.risk_logit[~rows].any()


def test_an_untrained_head_is_the_confidence_of_the_candidate_where_that_is_not_the_top(golden, equal_up_to_rounding):
    config = HeadConfig("linear", ("log_p1", "log_risk"))
    risk = torch.tensor([0.1, 0.9, 1.0 - 1e-4])  # of candidates beside a top token of 0.9
    figures = torch.stack([torch.full_like(risk, 0.9).log(), risk.log()], -1).unsqueeze(0)
    scores = ScoringHead(config)(figures, torch.ones(1, 3, dtype=torch.bool), torch.zeros(1, 3, dtype=torch.long))
    equal_up_to_rounding(scores.risk[0], risk)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("blocks", [1, 2])
def test_the_stream_without_lora_predicts_what_the_base_predicts(golden, blocks, padding, equal_up_to_rounding):
    tokens, mask, rows = case(golden, padding)
    stream = make_head(golden, "hidden", blocks=blocks).stream
    last = []
    handle = golden.denoiser.final_norm.register_forward_hook(lambda _, inputs, output: last.append(output))
    prediction = golden.denoiser(tokens, attention_mask=mask, rows=rows, taps=range(2)[-blocks:])
    handle.remove()
    hidden = over(stream, prediction.taps, rows)
    equal_up_to_rounding(hidden, last[0])
    equal_up_to_rounding(golden.denoiser.model.lm_head(hidden), prediction.logits)


@pytest.mark.parametrize("mode", ["prefix", "dual"])
@pytest.mark.parametrize("blocks", [1, 2])
def test_the_stream_reads_what_a_cached_forward_read(golden, blocks, mode, equal_up_to_rounding):
    tokens, _, rows = case(golden)
    stream, cached = make_head(golden, "hidden", blocks=blocks).stream, golden.denoiser.with_cache(mode)
    opening = torch.ones(2, dtype=torch.bool)
    cached(tokens, rows=rows, refresh=opening)
    tokens = torch.where(rows & (torch.arange(24) == 16), 7, tokens)
    rows = rows & (tokens == 250)
    prediction = cached(tokens, rows=rows, refresh=~opening, taps=range(2)[-blocks:])
    assert (prediction.positions < 24).all()
    logits = golden.denoiser.model.lm_head(over(stream, prediction.taps, rows))
    equal_up_to_rounding(logits, prediction.logits)


def by_native_layers(golden, stream, taps, rows, mask):
    """The stream's blocks run whole: on the base's input, with the rows' own states in it after the first block."""
    canvas, place = torch.arange(len(rows)).unsqueeze(1).expand(rows.shape)[rows], rows.nonzero()[:, 1]
    place = place - int(golden.denoiser.shifted)
    hidden, whole = None, taps[0].hidden
    for block, tap in zip(stream.blocks, taps, strict=True):
        whole = tap.hidden.clone()
        if hidden is not None:
            whole[canvas, place] = hidden
        attention = create_bidirectional_mask(golden.denoiser.model.config, whole, mask)
        rotary = (tap.cos, tap.sin)
        hidden = block(whole, attention_mask=attention, position_embeddings=rotary, is_causal=False)[canvas, place]
    return stream.norm(hidden)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("blocks", [1, 2])
def test_with_lora_queries_are_its_own_and_so_are_the_later_blocks_keys_of_its_rows(golden, blocks, padding):
    tokens, mask, rows = case(golden, padding)
    stream = make_head(golden, "lora", blocks=blocks, seed=1).stream
    taps = golden.denoiser(tokens, attention_mask=mask, rows=rows, taps=range(2)[-blocks:]).taps
    hidden = over(stream, taps, rows)
    expected = by_native_layers(golden, stream.base_model.model, taps, rows, mask)
    torch.testing.assert_close(hidden, expected, atol=2e-5, rtol=1e-4)
    plain = over(make_head(golden, "hidden", blocks=blocks).stream, taps, rows)
    assert (hidden - plain).abs().max() > 0.1


def test_attention_computes_no_more_queries_than_the_fullest_canvas_has_rows(golden, monkeypatch, equal_up_to_rounding):
    widths = []
    real = side_stream.scaled_dot_product_attention
    monkeypatch.setattr(
        side_stream, "scaled_dot_product_attention", lambda q, *a, **k: widths.append(q.shape[2]) or real(q, *a, **k)
    )
    tokens, _, _ = case(golden)
    rows = torch.zeros_like(tokens, dtype=torch.bool)
    rows[0, 20], rows[1, 16], rows[1, 19] = True, True, True
    stream = make_head(golden, "hidden").stream
    taps = golden.denoiser(tokens, rows=rows, taps=(1,)).taps
    together = over(stream, taps, rows)
    assert widths == [2]
    assert over(stream, taps, torch.zeros_like(rows)).shape == (0, golden.denoiser.hidden_size)
    alone = rows & (torch.arange(len(rows)) == 1).unsqueeze(1)
    equal_up_to_rounding(over(stream, taps, alone), together[1:])


def test_rows_that_are_not_asked_for_keep_the_base_keys(golden, equal_up_to_rounding):
    """Scored alone, a row of K = 1 gets what it gets among the others."""
    tokens, _, rows = case(golden)
    stream = make_head(golden, "lora", seed=1).stream
    taps = golden.denoiser(tokens, rows=rows, taps=(1,)).taps
    together = over(stream, taps, rows)
    alone = torch.zeros_like(rows)
    alone[1, 20] = True
    equal_up_to_rounding(over(stream, taps, alone)[0], together[alone[rows]][0])


def test_a_left_padded_row_scores_as_the_row_alone(golden):
    tokens, mask, rows = case(golden, "_left")
    real = mask[1]
    for variant in VARIANTS:
        head = make_head(golden, variant, seed=2)
        together, _ = score(golden.denoiser, head, tokens, mask, rows)
        alone, _ = score(golden.denoiser, head, tokens[1:, real], None, rows[1:, real])
        torch.testing.assert_close(alone.gain[0], together.gain[1, real], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(alone.risk[0], together.risk[1, real], atol=1e-5, rtol=1e-4)


def test_lora_that_does_not_match_every_module_is_refused(golden, monkeypatch):
    names = (*side_stream.LORA_TARGETS[:4], "ff_out")  # LLaDA's own name of down_proj
    monkeypatch.setattr(side_stream, "LORA_TARGETS", names)
    with pytest.raises(ValueError, match=r"^LoRA must match 5 modules \(q_proj, .*, ff_out\), got 4$"):
        make_head(golden, "lora")


def test_more_blocks_than_the_base_has_are_refused(golden):
    with pytest.raises(ValueError, match=r"^blocks must be at most the base's 2, got 3$"):
        make_head(golden, "hidden", blocks=3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"blocks": 0}, "blocks must be at least 1, got 0"),
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"threshold": 1.0}, r"threshold must lie in \(0, 1\), got 1.0"),
    ],
)
def test_a_config_out_of_range_is_refused(change, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        HeadConfig(**{"variant": "linear", "feature_names": NAMES, **change})


@pytest.mark.parametrize("variant", ["hidden", "lora"])
def test_a_head_that_reads_hidden_states_needs_a_base(variant):
    with pytest.raises(ValueError, match=f"^variant '{variant}' needs a base model, got none$"):
        ScoringHead(HeadConfig(variant, NAMES))
