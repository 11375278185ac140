"""LoPA, look-ahead in every round: the closest published rival of Explore-Then-Exploit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decoding.policies.ete import Plan
from decoding.policies.rules import at_least_one, require
from decoding.policy import Needs, Policy, order
from decoding.reading import Reading
from decoding.state import DecodeState, Proposal


@final
@dataclass(frozen=True)
class LoPA(Policy):
    """Look-ahead parallel decoding, arXiv 2512.16229: each round an anchor and k branches that fill one position more.

    The anchor commits {i : c_i > threshold}, or the best position where there is none; branch j commits the anchor's
    and the j-th most confident of the remaining positions. All k + 1 canvases share the next forward, and the one whose
    remaining masks have the greatest mean confidence is kept (1 for a canvas without any), the anchor among equals.

    Args:
        threshold: probability in (0, 1).
        branches: k, at least 1; 2 to 4 in the paper.
    """

    threshold: float = 0.9
    branches: int = 3

    def __post_init__(self) -> None:
        require(0 < self.threshold < 1, "threshold", "lie in (0, 1)", self.threshold)
        require(self.branches >= 1, "branches", "be at least 1", self.branches)

    @property
    def needs(self) -> Needs:
        """The anchor and the branches."""
        return Needs(canvases=self.branches + 1)

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """The anchor as canvas 0, then the branches."""
        accepted = reading.rows & (reading.confidence > self.threshold)
        anchor = at_least_one(accepted, reading.log_odds, reading)
        within = reading.rows & (anchor == 0)
        candidates = order(reading.log_odds, within)[:, : self.branches]
        plan = Plan(
            reason=anchor,
            triggered=within.any(-1),
            candidates=torch.nn.functional.pad(candidates, (1, 0)),
            valid=torch.nn.functional.pad(within.gather(-1, candidates), (1, 0)),
        )
        return plan.branches(state, reading)

    def score(self, reading: Reading) -> Float[Tensor, "B K"]:
        """Log-odds of the mean confidence over the masks of the opened blocks, infinite where there is none."""
        risk = (reading.log_risk.exp() * reading.rows).sum(-1)
        return reading.confidence.sum(-1).log() - risk.log()

    def choose(self, canvases: DecodeState, proposal: Proposal, reading: Reading) -> Int[Tensor, " B"]:
        """The most confident canvas, the leftmost of equals."""
        return self.score(reading).masked_fill(~proposal.live, -torch.inf).argmax(-1)
