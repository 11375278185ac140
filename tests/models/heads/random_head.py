"""A scoring head with random weights on a golden base, and its scores."""

from __future__ import annotations

import torch
from torch import nn

from decoding.reading import read
from decoding.sampling import Sampling
from models.heads.config import HeadConfig
from models.heads.scoring_head import ScoringHead

NAMES = ("log_p1", "log_risk", "entropy")
PROMPT = 14


def case(golden, padding=""):
    """Tokens, attention mask, and the masks of the canvas."""
    tokens = golden.tensors["input_ids" + padding]
    mask = golden.tensors.get("attention_mask" + padding)
    rows = (tokens == 250) & (torch.arange(24) >= PROMPT)
    return tokens, None if mask is None else mask.bool(), rows


def make_head(golden, variant, *, blocks=1, seed=None) -> ScoringHead:
    """An untrained head, or with a seed one whose every trainable tensor is random."""
    config = HeadConfig(variant, NAMES, blocks=blocks, rank=4, width=16, base=golden.denoiser.fingerprint())
    head = ScoringHead(config, golden.denoiser).eval()
    if seed is not None:
        torch.manual_seed(seed)
        head.normalise_by(torch.randn(50, len(NAMES)))
        for parameter in (p for p in head.parameters() if p.requires_grad):
            nn.init.normal_(parameter, std=0.3)
    return head


def score(denoiser, head, tokens, mask, rows):
    """The head's scores, and the reading they are made from."""
    prediction = denoiser(tokens, attention_mask=mask, rows=rows, taps=head.taps)
    reading = read(prediction, Sampling(forbidden=(250,)))
    figures = torch.stack([reading.top_log_probs[..., 0], reading.log_risk, reading.entropy], -1)
    return head(figures, rows, reading.token, reading.taps), reading
