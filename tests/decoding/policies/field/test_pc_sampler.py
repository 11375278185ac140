"""Confidence by place and by how rare the token is."""

from dataclasses import replace
from math import log

import pytest
import torch

from decoding.policies.field.pc_sampler import PCSampler
from decoding.state import Reason

EXPLOIT = Reason.EXPLOIT


@pytest.mark.parametrize(("bias", "first"), [(0.0, 2), (log(2), 0), (0.1, 1)])
def test_the_bias_halves_what_stands_further_off(committed, bias, first):
    confidence = [0.5, 0.6, 0.65]  # at log 2: .5, .3, .1625; at .1: .5, .543, .532
    assert committed(PCSampler(bias), confidence) == {first: EXPLOIT}


def test_places_count_from_the_start_of_the_block(canvas, reading_of):
    state = replace(canvas(6, 3), opened=torch.tensor([2]))
    score = PCSampler(log(2)).score(state, reading_of([0.4] * 6))
    torch.testing.assert_close(score, torch.tensor([[0.4, 0.2, 0.1, 0.4, 0.2, 0.1]]))


def test_rare_tokens_count_more_up_to_the_clip(canvas, reading_of):
    reading = replace(reading_of([0.5, 0.5, 0.9]), token=torch.tensor([[0, 1, 2]]))
    score = PCSampler(0.0, clip=3.0, background=(0.5, 0.1, 1e-4)).score(canvas(3), reading)
    torch.testing.assert_close(score, torch.tensor([[0.5 * log(2), 0.5 * log(10), 3.0]]))


def test_several_positions_a_round(committed):
    assert committed(PCSampler(0.0, per_round=2), [0.5, 0.7, 0.6]) == {1: EXPLOIT, 2: EXPLOIT}


@pytest.mark.parametrize("settings", [{"bias": -1.0}, {"clip": 0.0}, {"background": (2.0,)}, {"per_round": 0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=f"^{next(iter(settings))} must "):
        PCSampler(**settings)
