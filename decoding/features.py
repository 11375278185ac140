"""Per-position features of a scoring head: what can be read off logits and canvas alone, in float32."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decoding.reading import Reading
from decoding.state import DecodeState

NAMES = (
    *(f"log_p{rank}" for rank in range(1, 6)),
    "log_risk",  # log(1 - c): keeps the careful end apart where c rounds to 1
    "margin",
    "entropy",
    "change_1",  # c now minus c one reading ago
    "change_2",
    "same_1",  # candidate unchanged since one reading ago
    "same_2",
    "exploit",  # in the set that is about to be committed anyway
    "mask_ratio",
    "frontier",
    "opened",  # share of the blocks that are open
    "left_gap",  # log(1 + distance to the nearest revealed position on the left)
    "right_gap",
    "is_eos",
    "risk_rank",  # place in the order of confidence, over the number of feasible masks
    "risk_sum",  # log of the summed 1 - c of this and all more confident positions
)


def features(state: DecodeState, reading: Reading, exploit: Bool[Tensor, "... L"]) -> Float[Tensor, "... L F"]:
    """The features NAMES of every position; meaningless outside `reading.rows`, where heads do not look.

    `exploit` marks the positions that will be committed in any case: a head must imagine those already revealed.
    """
    layout = state.layout
    canvas = (state.block >= 0).sum(-1, keepdim=True)
    ratio = (state.masked.sum(-1, keepdim=True) / canvas).expand_as(reading.confidence)
    previous, before = state.recent_confidence[..., 0, :], state.recent_confidence[..., 1, :]
    left, right = _gaps(~state.masked, canvas)
    eos = -1 if layout.eos_id is None else layout.eos_id
    risk_rank, risk_sum = _rank_and_sum(reading)
    columns = (
        *reading.top_log_probs.clamp(min=-20).unbind(-1),
        reading.log_risk.clamp(min=-20),
        reading.margin,
        reading.entropy,
        reading.confidence - previous,
        previous - before,
        (reading.token == state.recent_token[..., 0, :]).float(),
        (reading.token == state.recent_token[..., 1, :]).float(),
        exploit.float(),
        ratio,
        state.frontier.float(),
        (state.opened / state.num_blocks).unsqueeze(-1).expand_as(ratio),
        left,
        right,
        (reading.token == eos).float(),
        risk_rank,
        risk_sum,
    )
    return torch.stack([c.float() for c in columns], -1)


def _gaps(revealed: Bool[Tensor, "... L"], far: Int[Tensor, "... 1"]) -> tuple[Tensor, Tensor]:
    """log(1 + distance) to the nearest revealed position on the left and on the right; `far`, the canvas, where there is none."""
    length = revealed.shape[-1]
    position = torch.arange(length, device=revealed.device).expand_as(revealed)
    left = position - torch.where(revealed, position, -length).cummax(-1).values
    right = torch.where(revealed, position, 2 * length).flip(-1).cummin(-1).values.flip(-1) - position
    return torch.minimum(left, far).float().log1p(), torch.minimum(right, far).float().log1p()


def _rank_and_sum(reading: Reading) -> tuple[Tensor, Tensor]:
    """Relative place in the order of risk, and log of the running sum of 1 - c in that order."""
    risk = reading.log_risk.exp().masked_fill(~reading.rows, 2.0)
    ordered, order = risk.sort(dim=-1, stable=True)
    ranks = torch.argsort(order, dim=-1, stable=True)
    running = ordered.cumsum(-1).gather(-1, ranks)
    count = reading.rows.sum(-1, keepdim=True).clamp(min=1)
    return ranks / count, running.clamp(min=1e-9).log()
