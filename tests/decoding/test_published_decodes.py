"""Whole decodes of the shipped model beside LLaDA's and Fast-dLLM's published loops, which rank by a softmax in float64."""

from __future__ import annotations

import pytest
import torch

import models
from decoding import generate
from train.commands.command_line import shipped

PUZZLES = (
    "100020040074000905080000000000402800007309502010000409000000154009700200041003096",
    "000000907000420180000705026100904000050000040000507009920108000034059000507000000",
)
LENGTH = 81


@pytest.fixture(scope="module")
def reason():
    return models.load(shipped("checkpoints/reason-7m"), device="cpu")


def number_of_llada(confidence, block_length, step):
    """`get_num_transfer_tokens`: the masks of a block spread evenly over its steps, the remainder first."""
    steps = 27 * block_length // LENGTH
    return block_length // steps + (step < block_length % steps)


def number_over_threshold(confidence, block_length, step):
    """Fast-dLLM's `get_transfer_index` with a threshold."""
    return max(1, int((confidence >= 0.9).sum()))


def number_by_factor(confidence, block_length, step):
    """Fast-dLLM's `get_transfer_index_dynamic`: the largest n with (n + 1)(1 - c_n) < f."""
    ordered = confidence[confidence > -torch.inf].sort(descending=True).values
    over = [n for n, c in enumerate(ordered.tolist(), 1) if (n + 1) * (1 - c) >= 1.0]
    return max(1, (over[0] if over else len(ordered) + 1) - 1)


def published(denoiser, prompt, block_length, number):
    """The loop of both: ML-GSAI/LLaDA generate.py and NVlabs/Fast-dLLM generate.py without a cache; canvas and forwards."""
    canvas = torch.cat([prompt, torch.full((LENGTH,), denoiser.mask_id)])
    forwards = 0
    for start in range(len(prompt), len(canvas), block_length):
        end, step = start + block_length, 0
        while bool((canvas[start:end] == denoiser.mask_id).any()):
            logits = denoiser.logits(canvas[None])[0].index_fill(-1, torch.tensor(denoiser.mask_id), -torch.inf)
            token = logits.argmax(-1)
            confidence = logits.double().softmax(-1).gather(-1, token[:, None])[:, 0]
            here = (canvas == denoiser.mask_id) & (torch.arange(len(canvas)) < end)
            confidence = torch.where(here, confidence, -torch.inf)
            chosen = confidence.topk(number(confidence, block_length, step)).indices
            canvas[chosen] = token[chosen]
            forwards, step = forwards + 1, step + 1
    return canvas, forwards


@pytest.mark.parametrize("block_length", [27, 81])
@pytest.mark.parametrize(
    ("settings", "number"),
    [
        ({"steps": 27}, number_of_llada),
        ({"threshold": 0.9}, number_over_threshold),
        ({"factor": 1.0}, number_by_factor),
    ],
)
def test_every_token_and_every_forward_are_the_published_ones(reason, block_length, settings, number):
    made = generate(reason, list(PUZZLES), gen_length=LENGTH, block_length=block_length, early_stop=False, **settings)
    for row, puzzle in enumerate(PUZZLES):
        prompt = torch.tensor(reason.encode([puzzle])[0])
        canvas, forwards = published(reason, prompt, block_length, number)
        assert made.sequences[row].tolist()[-len(canvas) :] == canvas.tolist()
        assert int(made.rounds[row]) == forwards
