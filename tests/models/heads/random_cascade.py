"""A cascade with random weights on a golden base, and what it says of the rows not committed."""

from __future__ import annotations

import torch
from torch import nn

from decoding.reading import read
from decoding.sampling import Sampling
from models.heads.cascade import Cascade, CascadeConfig

PROMPT = 14


def case(golden, padding=""):
    """Tokens, attention mask, and the masks of the canvas."""
    tokens = golden.tensors["input_ids" + padding]
    mask = golden.tensors.get("attention_mask" + padding)
    return tokens, None if mask is None else mask.bool(), (tokens == 250) & (torch.arange(24) >= PROMPT)


def make(golden, *, blocks=1, seed=None) -> Cascade:
    """An unfitted cascade, or with a seed one whose every trainable tensor is random."""
    cascade = Cascade(CascadeConfig(blocks, rank=4, base=golden.denoiser.fingerprint()), golden.denoiser).eval()
    if seed is not None:
        torch.manual_seed(seed)
        for parameter in (p for p in cascade.parameters() if p.requires_grad):
            nn.init.normal_(parameter, std=0.2)
    return cascade


def reading_of(golden, cascade, tokens, mask, rows, taps=None):
    prediction = golden.denoiser(tokens, attention_mask=mask, rows=rows, taps=taps or cascade.taps)
    return read(prediction, Sampling(forbidden=(250,)))


def say(cascade, reading, committed, token=None):
    token = reading.token if token is None else token
    figures = (reading.top_tokens, reading.top_log_probs, reading.log_normaliser)
    return cascade(reading.taps, reading.rows, committed, token, *figures)


def every_third(rows):
    return rows & (rows.long().cumsum(-1) % 3 == 1)
