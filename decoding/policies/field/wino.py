"""WINO: draft widely, verify every commit of the block in each round, take back what no longer holds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from decoding.policies.remask import write
from decoding.policies.rules import at_least_one, require
from decoding.policy import Needs, Policy, rank
from decoding.reading import Reading
from decoding.state import DecodeState, Proposal, Reason

SHARE, LEAST, MOST = (7, 10), 5, 20  # of the masks left, what a round commits at most
BEFORE_THE_FIRST = 30  # commits that a block is taken to have had before its first round


@final
@dataclass(frozen=True)
class WINO(Policy):
    """Commit generously, check every commit of the block in each round and take back what fails: WINO, arXiv 2507.18578.

    As in the authors' code.
    Of n masks of the block a round drafts {i : c_i > threshold}, the best position where there is none, and no more than the
    min(max(.7 n, 5), 20) most confident. Every earlier commit of the block is read by a shadow row that does not see it; it is
    taken back where its probability there is below `threshold_back`, those with the least of it first, fewer than the round before
    committed, and none in a round of one draft. A position may be taken back many times, and a round may lose more than it gains;
    since what is taken back stays below the drafts of the round before, a block ends within a round for each of its positions.

    Args:
        threshold: tau_1 of a draft, in [0, 1); .5 to .7 in the published runs.
        threshold_back: tau_2 of what stands, in [0, 1].
    """

    repeats: ClassVar[bool] = True
    threshold: float = 0.6
    threshold_back: float = 0.9

    def __post_init__(self) -> None:
        require(0 <= self.threshold < 1, "threshold", "lie in [0, 1)", self.threshold)
        require(0 <= self.threshold_back <= 1, "threshold_back", "lie in [0, 1]", self.threshold_back)

    @property
    def needs(self) -> Needs:
        """A shadow row for each position of the block, and rounds that lose."""
        return Needs(shadows=True, losses=True)

    @property
    def takes_back(self) -> bool:
        """It does."""
        return True

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """The drafts, and what is taken back, in one canvas."""
        reason = self.drafts(state, reading)
        failing = reading.rows & ~state.masked & (reading.confidence < self.threshold_back)
        failing = failing & ((reason > 0).sum(-1, keepdim=True) > 1)
        taken = failing & (rank(-reading.log_odds, failing) < drafts_before(state) - 1)
        reason = reason.masked_fill(taken, int(Reason.REVOKED))
        return replace(Proposal.single(state, reading, reason), tokens=write(state, reading, reason).unsqueeze(1))

    def drafts(self, state: DecodeState, reading: Reading) -> Int[Tensor, "B L"]:
        """The reason of every draft; AGAIN where the position was taken back before."""
        masked = replace(reading, rows=reading.rows & state.masked)
        wide = masked.rows & (reading.confidence > self.threshold)
        first = within_cap(masked.rows, wide, rank(reading.log_odds, masked.rows))
        reason = at_least_one(first, reading.log_odds, masked)
        return torch.where((reason > 0) & (state.reason == int(Reason.REVOKED)), int(Reason.AGAIN), reason)


def within_cap(
    masked: Bool[Tensor, "B L"], wide: Bool[Tensor, "B L"], place: Int[Tensor, "B L"]
) -> Bool[Tensor, "B L"]:
    """Of the positions in `wide` those among the first min(max(.7 n, 5), 20) of n masks, by their place in order of confidence."""
    most = masked.sum(-1, keepdim=True) * SHARE[0] // SHARE[1]
    return wide & (place < most.clamp(LEAST, MOST))


def drafts_before(state: DecodeState) -> Int[Tensor, "B 1"]:
    """What the round before committed, before it took anything back; 30 in the first round of a block."""
    last = ~state.masked & (state.committed_round == state.round.unsqueeze(-1) - 1) & (state.block >= 0)
    number = last.sum(-1, keepdim=True)
    return torch.where((state.spent == 0).unsqueeze(-1), BEFORE_THE_FIRST, number)
