"""Saber: commit faster the surer the text so far, and mask again what has lost most confidence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from decoding.policies.remask import write
from decoding.policies.rules import require
from decoding.policy import Needs, Policy, rank
from decoding.reading import Reading, tiny
from decoding.state import DecodeState, Proposal, Reason

REMASKED = 8  # one position is masked again for so many commits, rounded up


@final
@dataclass(frozen=True)
class Saber(Policy):
    """Commit what is surer than the average commit so far, and take back what fell most: Saber, arXiv 2510.18165.

    With q_j the confidence at which position j was committed last, a round commits {i : c_i > mean_j q_j}, at least the `least`
    most confident ones. Of m commits, max(least // 2, ceil(m / 8)) but fewer than m positions are masked again: those committed
    positions, new ones included, whose confidence (of the candidate that this reading gives there) has fallen most since the last
    reading. Nothing is masked again in the round that fills the opened blocks. A position may be taken back many times.

    Args:
        least: n, commits of a round at least, 1 or more; 2 in the published runs.
    """

    repeats: ClassVar[bool] = True
    least: int = 2

    def __post_init__(self) -> None:
        require(self.least >= 1, "least", "be at least 1", self.least)

    @property
    def needs(self) -> Needs:
        """Readings of committed positions, and two memories: log(1 - c) in the last reading and at the last commit."""
        return Needs(committed=True, memory=2)

    @property
    def takes_back(self) -> bool:
        """It does."""
        return True

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """The commits with what is taken back."""
        last, at_commit = state.memory.unbind(1)
        candidates = reading.rows & state.masked
        chosen = self.commits(reading.log_risk.masked_fill(~candidates, 0.0), at_commit, candidates)
        fallen = reading.log_risk.exp() - last.exp()
        taken = self.taken_back(state, chosen, fallen)
        reason = (chosen & ~taken) * int(Reason.EXPLOIT) + (taken & ~state.masked) * int(Reason.REVOKED)
        at_commit = torch.where(chosen, reading.log_risk.clamp(max=-tiny()), at_commit)
        last = torch.where(reading.rows, reading.log_risk, last)
        plan = Proposal.single(state, reading, reason)
        tokens = write(state, reading, reason)
        return replace(plan, tokens=tokens.unsqueeze(1), memory=torch.stack([last, at_commit], 1))

    def commits(
        self, log_risk: Float[Tensor, "B L"], at_commit: Float[Tensor, "B L"], candidates: Bool[Tensor, "B L"]
    ) -> Bool[Tensor, "B L"]:
        """The candidates less risky than the mean commit, or the `least` best ones where those are fewer."""
        known = at_commit < 0
        mean = (at_commit.exp() * known).sum(-1, keepdim=True) / known.sum(-1, keepdim=True).clamp(min=1)
        surer = candidates & known.any(-1, keepdim=True) & (log_risk.exp() < mean)
        first = candidates & (rank(-log_risk, candidates) < self.least)
        return torch.where(surer.sum(-1, keepdim=True) < self.least, first, surer)

    def taken_back(
        self, state: DecodeState, chosen: Bool[Tensor, "B L"], fallen: Float[Tensor, "B L"]
    ) -> Bool[Tensor, "B L"]:
        """The committed positions whose confidence fell most; none once nothing is left, none that was never read before."""
        number = chosen.sum(-1, keepdim=True).clamp(min=self.least)
        allowed = (number + REMASKED - 1).div(REMASKED, rounding_mode="floor").clamp(min=self.least // 2)
        fresh = (state.opened > 1).unsqueeze(-1) & (state.block == state.opened.unsqueeze(-1) - 1)
        seen = ~(fresh & (state.spent == 0).unsqueeze(-1))
        committed = (state.block >= 0) & ~state.masked & (state.reason != int(Reason.END))
        within = (committed | chosen) & seen & (state.feasible & ~chosen).any(-1, keepdim=True)
        return within & (rank(fallen, within) < torch.minimum(allowed, number - 1))
