"""The denoising loss by hand numbers and by enumeration of all masks."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from train.base.diffusion_loss import denoising_loss, mask_canvas, mask_rates


def test_rates_are_stratified_and_bounded_below() -> None:
    rates = mask_rates(torch.tensor([0.0, 0.5, 0.0, 0.999]), floor=0.1)
    torch.testing.assert_close(rates, torch.tensor([0.1, 0.375, 0.5, 0.99975]))


def test_schedule_prefers_high_rates_above_one() -> None:
    uniforms = torch.full((1000,), 0.5)
    assert mask_rates(uniforms, floor=1e-6).mean() == pytest.approx(1 / 2, rel=1e-3)
    assert mask_rates(uniforms, floor=1e-6, schedule=2.0).mean() == pytest.approx(2 / 3, rel=1e-3)
    assert mask_rates(uniforms, floor=1e-6, schedule=0.5).mean() == pytest.approx(1 / 3, rel=1e-3)


def test_a_position_is_masked_where_its_number_is_below_the_rate() -> None:
    noisy, masked = mask_canvas(
        torch.tensor([[5, 6, 7]]), torch.tensor([0.5]), torch.tensor([[0.5, 0.49, 0.0]]), mask_id=9
    )
    assert noisy.tolist() == [[5, 9, 9]]
    assert masked.tolist() == [[False, True, True]]


def test_rate_one_masks_everything() -> None:
    canvas = torch.arange(6).view(1, 6)
    uniforms = torch.rand(1, 6, generator=torch.Generator().manual_seed(0))
    assert mask_canvas(canvas, torch.ones(1), uniforms, mask_id=9)[1].all()


def test_loss_by_hand() -> None:
    logits = torch.log(torch.tensor([[[0.5, 0.5], [0.25, 0.75]], [[0.9, 0.1], [0.2, 0.8]]]))
    canvas = torch.tensor([[0, 1], [0, 0]])
    masked = torch.tensor([[True, False], [True, True]])
    rates = torch.tensor([0.5, 0.8])
    by_hand = [-math.log(0.5) / 0.5 / 2, (-math.log(0.9) - math.log(0.2)) / 0.8 / 2]
    loss = denoising_loss(logits, canvas, masked, rates)
    assert loss.item() == pytest.approx(sum(by_hand) / 2, rel=1e-6)
    uniform = denoising_loss(logits, canvas, masked, rates, "uniform")
    assert uniform.item() == pytest.approx(-(math.log(0.5) + math.log(0.9) + math.log(0.2)) / 3, rel=1e-6)


def test_the_inverse_weight_makes_the_mean_over_masks_the_plain_cross_entropy() -> None:
    logits = torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(1))
    canvas, rate = torch.tensor([[1, 0, 4, 2]]), 0.3
    expected = torch.nn.functional.cross_entropy(logits[0], canvas[0]).item()
    mean = 0.0
    for mask in itertools.product([False, True], repeat=4):
        masked = torch.tensor([mask])
        probability = rate ** sum(mask) * (1 - rate) ** (4 - sum(mask))
        mean += probability * denoising_loss(logits, canvas, masked, torch.tensor([rate])).item()
    assert mean == pytest.approx(expected, rel=1e-5)


def test_no_mask_gives_zero_not_nan() -> None:
    args = torch.zeros(1, 2, 3), torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, 2, dtype=torch.bool), torch.ones(1)
    assert denoising_loss(*args).item() == denoising_loss(*args, "uniform").item() == 0


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="floor"):
        mask_rates(torch.zeros(1), floor=0.0)
    with pytest.raises(ValueError, match="schedule"):
        mask_rates(torch.zeros(1), floor=0.5, schedule=0.0)


def test_certainty_adds_the_entropy_where_the_top_token_is_right() -> None:
    torch.manual_seed(0)
    logits, canvas = torch.randn(2, 3, 5), torch.randint(5, (2, 3))
    canvas[0, 0], canvas[1, 2] = logits[0, 0].argmax(), logits[1, 2].argmax()
    masked, rates = torch.tensor([[True, True, False], [True, False, True]]), torch.tensor([0.5, 0.8])
    p = logits.softmax(-1)
    right = (logits.argmax(-1) == canvas) & masked
    assert 2 <= right.sum() < masked.sum()
    extra = torch.where(right, -(p * p.log()).sum(-1), torch.zeros(())) / rates[:, None]
    plain, surer = (
        denoising_loss(logits, canvas, masked, rates),
        denoising_loss(logits, canvas, masked, rates, certainty=2.0),
    )
    assert surer.item() == pytest.approx(plain.item() + 2 * extra.mean().item(), rel=1e-5)
