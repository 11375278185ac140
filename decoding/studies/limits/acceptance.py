"""Approximate verification of one block of the Block-HMM: what a cheaper accept-reject loses, exactly.

Proposals come from q, the product of the marginals. Accepting with min(1, p / (m q)) is exact for m >= M = sup p / q and costs M
proposals. Cheaper are
    lenient:   a smaller m: 1 / sum min(q, p / m) proposals, drawn from min(q, p / m) / sum;
    capped:    giving up after K proposals with the last one;
    tempered:  exact for p^(1/T) / sum p^(1/T) instead of p.
exp(TC) bounds from below what exact verification costs (Eq. 19 of arXiv 2602.00286).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from decoding.studies.block_hmm.divergence import kl
from decoding.studies.block_hmm.remasking import Block
from models.toys.block_hmm import BlockHMMConfig


def tempered(p: Float[Tensor, " p"], q: Float[Tensor, " p"], temperature: float) -> tuple[Tensor, float]:
    """p^(1/T) / sum p^(1/T), and the proposals of its exact accept-reject."""
    power = p ** (1 / temperature)
    law = power / power.sum()
    return law, float((law / q).max())


def lenient(p: Float[Tensor, " p"], q: Float[Tensor, " p"], bar: float) -> tuple[Tensor, float]:
    """The law of accept-reject with min(1, p / (bar q)), and its proposals."""
    kept = torch.minimum(q, p / bar)
    return kept / kept.sum(), float(1 / kept.sum())


def capped(p: Float[Tensor, " p"], q: Float[Tensor, " p"], tries: int) -> tuple[Tensor, float]:
    """The law of exact accept-reject that gives up after `tries` proposals and keeps the last, and its proposals."""
    bar = float((p / q).max())
    refused = 1 - 1 / bar
    rest = (q - p / bar).clamp(min=0) / refused if refused > 0 else p
    late = refused**tries
    return (1 - late) * p + late * rest, (1 - late) * bar


def verification(config: BlockHMMConfig, temperatures: Sequence[float], tries: Sequence[int]) -> dict[str, Any]:
    """Cost and loss of every leniency, cap and temperature.

    Args:
        config: the model; its first block is verified.
        temperatures: of the target.
        tries: caps on the proposals.
    """
    block, rows = Block.first(config), []
    p, q = block.joint, block.mean_field
    ways = {("lenient", float(m)): lenient(p, q, m) for m in _bars(float((p / q).max()))}
    ways |= {("capped", float(k)): capped(p, q, k) for k in tries}
    ways |= {("tempered", float(t)): tempered(p, q, t) for t in temperatures}
    for (rule, dial), (law, cost) in ways.items():
        losses = {
            "reverse_kl": float(kl(law, p)),
            "forward_kl": float(kl(p, law)),
            "broken": float(law[block.broken].sum()),
        }
        rows.append({"rule": rule, "dial": dial, "proposals": cost, **losses})
    return {"exp_tc": math.exp(float(kl(p, q))), "rows": rows}


def _bars(bar: float) -> list[float]:
    """From 1 to M in equal ratios."""
    return [bar ** (step / 12) for step in range(13)]
