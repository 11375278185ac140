"""Dream's published schedule: how many positions a round commits follows a linear time grid over the whole canvas."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor

from decoding.policies.quota import OrderedPolicy
from decoding.policies.rules import require
from decoding.policy import Needs, rank
from decoding.reading import Reading
from decoding.state import DecodeState, Proposal, Reason


@final
@dataclass(frozen=True)
class DreamQuota(OrderedPolicy):
    """Commit floor(n (1 - s / t)) of the n masks left each round, and all of them in the last: Dream.

    t and s are neighbours of the grid linspace(1, eps, steps + 1); `diffusion_generate` of Dream (arXiv 2508.15487), whose
    n is the mean over the batch and here each row's own. Open the whole canvas (one block). As published, a round whose
    floor is 0 commits nothing and still costs its forward: the one rule here that may do so.

    Args:
        order: confidence (`maskgit_plus`), margin (`topk_margin`), entropy, random or left_to_right.
        steps: rounds in all, at least 1.
        eps: end of the time grid, in (0, 1).
    """

    steps: int = 512
    eps: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.steps >= 1, "steps", "be at least 1", self.steps)
        require(0 < self.eps < 1, "eps", "lie in (0, 1)", self.eps)

    @property
    def needs(self) -> Needs:
        """As many rounds as steps, some of which may commit nothing."""
        return replace(super().needs, rounds=self.steps)

    def quota(self, state: DecodeState) -> Int[Tensor, " B"]:
        """How many positions each row commits; float32 as published, so that the floors are the same."""
        time = torch.linspace(1, self.eps, self.steps + 1, device=state.tokens.device)
        step = (state.round - 1).clamp(0, self.steps - 1)
        left = state.masked.sum(-1)
        share = (left * (1 - time[step + 1] / time[step])).long()
        return torch.where(step == self.steps - 1, left, share)

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """Commit the first positions of each row, as many as its quota."""
        first = reading.rows & (rank(self.score(reading), reading.rows) < self.quota(state).unsqueeze(-1))
        return Proposal.single(state, reading, first * int(Reason.EXPLOIT))
