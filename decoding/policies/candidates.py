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


def lowest() -> float:
    """Logarithm of a confidence below any that can win, which stays finite; no constant, see `models.engine.figures.least`."""
    return math.log(1e-30)


def best_of_each_block(state: DecodeState, reading: Reading, left: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
    """The most confident of `left` in every block that has one."""
    block, place = state.block.clamp(min=0), torch.arange(left.shape[-1], device=left.device).expand_as(state.block)
    score = reading.log_odds.masked_fill(~left, -torch.inf)
    most = torch.full_like(score, -torch.inf).scatter_reduce(-1, block, score, "amax")
    equal = left & (score == most.gather(-1, block))
    nowhere = torch.full_like(place, left.shape[-1])
    first = nowhere.scatter_reduce(-1, block, torch.where(equal, place, nowhere), "amin")
    return equal & (place == first.gather(-1, block))


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
    log_c = reading.log_confidence.clamp(min=lowest())
    return -(-log_c / math.log(c_info)).exp() * log_c, reading.rows


CANDIDATE_RULES: Mapping[str, Callable[[Reading, float, float], tuple[Tensor, Tensor]]] = MappingProxyType(
    {"nearest": nearest, "band": band, "information": information}
)
"""Rule -> from a reading, c_info and C: scores [B, L], the best largest, and which positions are eligible."""
