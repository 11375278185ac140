"""Rules that take commits back: draft-and-verify and remasking of the least confident, each position at most once.

A position taken back is masked again (Reason.REVOKED), and what is then committed there stays (Reason.AGAIN). A round takes
back fewer positions than it commits, so that every round makes progress; what the last round commits stands.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decoding.commit import commit_first
from decoding.policies.rules import at_least_one, require
from decoding.policy import Needs, Policy, rank
from decoding.reading import Reading
from decoding.state import DecodeState, Proposal, Reason


def drafts(state: DecodeState, reading: Reading, threshold: float) -> Int[Tensor, "B L"]:
    """The reason of every masked position with c >= threshold, at least the best one; AGAIN where it was taken back before."""
    masked = replace(reading, rows=reading.rows & state.masked)
    accepted = masked.rows & (reading.confidence >= threshold)
    reason = at_least_one(accepted, reading.log_odds, masked)
    return torch.where((reason > 0) & (state.reason == int(Reason.REVOKED)), int(Reason.AGAIN), reason)


def revocable(state: DecodeState) -> Bool[Tensor, "B L"]:
    """Positions that a policy committed and has not taken back yet."""
    return (state.reason > int(Reason.NONE)) & (state.reason < int(Reason.END)) & ~state.masked


def take_back(reason: Int[Tensor, "B L"], worst: Float[Tensor, "B L"], failing: Bool[Tensor, "B L"]) -> Tensor:
    """REVOKED at the failing positions, those with most of `worst` first, fewer than the round commits."""
    commits = (reason > 0).sum(-1, keepdim=True)
    return torch.where(failing & (rank(worst, failing) < commits - 1), int(Reason.REVOKED), reason)


def write(state: DecodeState, reading: Reading, reason: Int[Tensor, "B ... L"]) -> Int[Tensor, "B ... L"]:
    """Canvases with candidates committed and revoked positions masked."""
    more = reason.ndim == 3
    tokens, found = (v.unsqueeze(1) if more else v for v in (state.tokens, reading.token))
    written = torch.where(reason > 0, found, tokens)
    return written.masked_fill(reason == int(Reason.REVOKED), state.layout.mask_id)


@final
@dataclass(frozen=True)
class DraftVerify(Policy):
    """Draft generously, verify each draft once against the others, take back what fails: after WINO, arXiv 2507.18578.

    Commit every position with c >= draft, at least the best one. Commits below `verify` are verified by the next forward:
    beside the canvas itself run `groups` canvases, each with one group of them masked again, so that a draft is predicted from
    the others (from all of them where there are at most `groups`). It is taken back unless the prediction there is the same token
    with c >= verify. `WINO` itself verifies every commit in every round by shadow rows; canvases do without those, on any
    denoiser, and are counted as sequence forwards.

    Args:
        draft: tau_1, in (0, 1].
        verify: tau_2, in [0.5, 1].
        groups: canvases that verify, at least 1.
    """

    draft: float = 0.6
    verify: float = 0.9
    groups: int = 3

    def __post_init__(self) -> None:
        require(0 < self.draft <= 1, "draft", "lie in (0, 1]", self.draft)
        require(0.5 <= self.verify <= 1, "verify", "lie in [0.5, 1]", self.verify)
        require(self.groups >= 1, "groups", "be at least 1", self.groups)

    @property
    def needs(self) -> Needs:
        """The drafts, and a canvas for each group."""
        return Needs(canvases=self.groups + 1)

    @property
    def takes_back(self) -> bool:
        """It does."""
        return True

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """The drafts with what failed masked again as canvas 0, then one canvas for each group of unsure drafts."""
        reason = drafts(state, reading, self.draft)
        agrees = (reading.token == state.tokens) & (reading.confidence >= self.verify)
        failing = reading.rows & revocable(state) & ~agrees
        support = torch.where(reading.token == state.tokens, reading.confidence, 0.0)
        reason = take_back(reason, -support, failing)
        committed = (reason > 0) & (reason != int(Reason.REVOKED))
        unsure = committed & (reason != int(Reason.AGAIN)) & (reading.confidence < self.verify)
        group = rank(reading.log_odds, unsure) % self.groups
        number = torch.arange(self.groups, device=group.device).view(1, -1, 1)
        blind = unsure.unsqueeze(1) & (group.unsqueeze(1) == number)
        all_blind = torch.cat([torch.zeros_like(blind[:, :1]), blind], 1)
        reasons = reason.unsqueeze(1).masked_fill(all_blind, 0)
        proposal = Proposal(
            tokens=write(state, reading, reasons),
            reason=reasons,
            live=torch.cat([state.unfinished.unsqueeze(1), blind.any(-1)], 1),
            log_confidence=torch.zeros_like(reasons[..., 0], dtype=torch.float),
        )
        # what is complete, or ended by an EOS, stands
        goes_on = commit_first(state, reading, proposal).unfinished.unsqueeze(1)
        return replace(proposal, live=torch.cat([proposal.live[:, :1], proposal.live[:, 1:] & goes_on], 1))

    def combine(self, reading: Reading, choice: Int[Tensor, " B"]) -> Reading:
        """Canvas 0 where it reads a position, and the canvas that verifies it elsewhere."""
        return reading.first()


@final
@dataclass(frozen=True)
class RemaskLowest(Policy):
    """Commit by confidence, and take back the commits that were least sure when they were made.

    Each round commits {i : c_i >= threshold}, at least the best one, and masks the `count` earlier commits with the smallest
    confidence below `keep` again, each once: they are predicted anew from what has been committed since.

    Args:
        threshold: in (0, 1].
        keep: confidence from which a commit stands, in (0, 1].
        count: positions taken back in a round at most, at least 1.
    """

    threshold: float = 0.6
    keep: float = 0.9
    count: int = 2

    def __post_init__(self) -> None:
        require(0 < self.threshold <= 1, "threshold", "lie in (0, 1]", self.threshold)
        require(0 < self.keep <= 1, "keep", "lie in (0, 1]", self.keep)
        require(self.count >= 1, "count", "be at least 1", self.count)

    @property
    def takes_back(self) -> bool:
        """It does."""
        return True

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """Commit, and mask the least sure earlier commits again."""
        reason = drafts(state, reading, self.threshold)
        unsure = revocable(state) & (state.committed_confidence < self.keep)
        lowest = unsure & (rank(-state.committed_confidence, unsure) < self.count)
        reason = take_back(reason, -state.committed_confidence, lowest)
        return replace(Proposal.single(state, reading, reason), tokens=write(state, reading, reason).unsqueeze(1))
