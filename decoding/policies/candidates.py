"""Where Explore-Then-Exploit explores: the best position of each block, and the candidates of Eq. 6 (arXiv 2511.21103)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from jaxtyping import Bool
from torch import Tensor

from decoding.policy import best
from decoding.reading import Reading
from decoding.state import DecodeState

TINY = 1e-30  # below any confidence that can win, so that logarithms stay finite


def best_of_each_block(state: DecodeState, reading: Reading, left: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
    """The most confident of `left` in every block that has one."""
    layout = state.layout
    member = layout.block == torch.arange(layout.num_blocks, device=left.device).unsqueeze(-1)  # [blocks, L]
    within = left.unsqueeze(1) & member
    score = reading.log_odds.unsqueeze(1).masked_fill(~within, -torch.inf)
    first = torch.nn.functional.one_hot(score.argmax(-1), left.shape[-1]).bool()
    return (first & within).any(1)


def best_of_all(state: DecodeState, reading: Reading, left: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
    """The most confident of `left`."""
    return best(reading.log_odds, left)


IMPLICIT_SCOPES: Mapping[str, Callable[[DecodeState, Reading, Tensor], Tensor]] = MappingProxyType(
    {"block": best_of_each_block, "global": best_of_all}
)


def nearest(reading: Reading, c_info: float, threshold: float) -> tuple[Tensor, Tensor]:
    """Eq. 6, variant A: smallest |c - c_info|."""
    return -(reading.confidence - c_info).abs(), reading.rows


def band(reading: Reading, c_info: float, threshold: float) -> tuple[Tensor, Tensor]:
    """Eq. 6, variant B: most confident among c_info <= c < C."""
    c = reading.confidence
    return reading.log_odds, (c >= c_info) & (c < threshold)


def information(reading: Reading, c_info: float, threshold: float) -> tuple[Tensor, Tensor]:
    """Eq. 6, variant C: largest -c^a log c with a = -1 / log c_info, whose peak e^(-1/a) is c_info."""
    log_c = reading.log_confidence.clamp(min=math.log(TINY))
    return -(-log_c / math.log(c_info)).exp() * log_c, reading.rows


CANDIDATE_RULES: Mapping[str, Callable[[Reading, float, float], tuple[Tensor, Tensor]]] = MappingProxyType(
    {"nearest": nearest, "band": band, "information": information}
)
"""Rule -> from a reading, c_info and C: scores [B, L], the best largest, and which positions are eligible."""
