"""Heads that know nothing: what chooses the settings of a head must leave them out."""

from __future__ import annotations

from dataclasses import replace

import torch

from models.denoiser import Denoiser
from models.heads.cascade import Cascade, CascadeConfig

BLOCKS = 4  # that run again where the head has no cascade to go by, or all that the base has
SPREAD = 0.5  # of the random weights


def put_random_cascade(denoiser: Denoiser, *, seed: int) -> None:
    """Give the denoiser's head a cascade of random weights, normal with SPREAD, in the shape of its own if it has one.

    Args:
        denoiser: the base with its head.
        seed: of the weights.
    """
    own = denoiser.head.cascade
    plain = CascadeConfig(blocks=min(BLOCKS, len(denoiser.blocks))) if own is None else own.config
    config = replace(plain, base=denoiser.fingerprint(), foretold=(), seen=())
    torch.manual_seed(seed)
    cascade = Cascade(config, denoiser).to(denoiser.device).eval()
    for weight in (p for p in cascade.parameters() if p.requires_grad):
        torch.nn.init.normal_(weight, std=SPREAD)
    denoiser.head.cascade = cascade
