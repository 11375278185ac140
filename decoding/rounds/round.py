"""What a round is made of: the forward over the live canvases, what the policy makes of it, and the commit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.functional import pad

from decoding.calls.waiting import Entry
from decoding.commit import commit
from decoding.policy import Policy
from decoding.reading import Reading
from decoding.state import DecodeState, Proposal, extend

OnStep = Callable[[DecodeState, Reading], None]


@dataclass(frozen=True)
class Counts:
    """What a decode cost.

    Attributes:
        rounds: sequential forwards the user of a row waits for.
        sequence_forwards: canvases of the row through the model (a k-branch round is 1 round, k sequence forwards).
        token_positions: positions computed for the row, padding not counted.
        explored: rounds in which the row ran more than one canvas.
        nfe: batched model calls.
    """

    rounds: Int[Tensor, " B"]
    sequence_forwards: Int[Tensor, " B"]
    token_positions: Int[Tensor, " B"]
    explored: Int[Tensor, " B"]
    nfe: int


@dataclass(frozen=True)
class Round:
    """One round of a decode, after its forward and before its commit.

    Attributes:
        state: what the forward read, of the canvas kept of every row.
        reading: of that state.
        proposal: what the policy commits next; None once nothing is masked.
        counts: what the decode has cost so far.
        entries: the prompts, where rows leave before the others have ended.
    """

    state: DecodeState
    reading: Reading
    proposal: Proposal | None
    counts: Counts
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class Carry:
    """What one round hands to the next.

    Attributes:
        canvases: K of each row, after the last commit.
        proposal: that made them.
        counts: rounds, sequence forwards, token positions and explored rounds of each row so far.
        alarm: 1 if a row that was unfinished gained nothing by that commit, 2 more if logits were NaN or infinite,
            4 more if figures of the head were.
    """

    canvases: DecodeState
    proposal: Proposal
    counts: Int[Tensor, "4 B"]
    alarm: Int[Tensor, ""]

    @property
    def live(self) -> Bool[Tensor, "B K"]:
        """Canvases that the next forward reads."""
        return self.proposal.live & self.canvases.unfinished

    def asked(self) -> tuple[Tensor, Tensor, Tensor]:
        """What the next forward is asked for: positions [B, K, L], canvases it reads, those whose block has just opened."""
        return self.canvases.feasible & self.live.unsqueeze(-1), self.live, self.canvases.spent == 0

    def where(self, rows: Bool[Tensor, " B"], other: Carry) -> Carry:
        """With these rows as they are in `other`, before its first round."""

        def pick(name: str) -> Tensor:
            new, old = getattr(other.proposal, name), getattr(self.proposal, name)
            return torch.where(rows.view(-1, *[1] * (old.ndim - 1)), new, old)

        chance = self.proposal.chance
        kept: dict[str, Any] = {name: pick(name) for name in KEPT}
        proposal = Proposal(**kept, chance=None if chance is None else chance.masked_fill(rows.unsqueeze(-1), 0.0))
        counts = torch.where(rows, other.counts, self.counts)
        return Carry(self.canvases.where(rows, other.canvases), proposal, counts, self.alarm)

    def at(self, index: Int[Tensor, " N"]) -> Carry:
        """Some rows alone."""
        kept: dict[str, Any] = {name: getattr(self.proposal, name)[index] for name in KEPT}
        return Carry(self.canvases.map(lambda v: v[index]), Proposal(**kept), self.counts[:, index], self.alarm)

    def put(self, some: Carry, place: Int[Tensor, " B"]) -> Carry:
        """All rows, some of them as they have become.

        Args:
            some: N rows.
            place: of each row among them; N and more for those that stay.
        """
        number = some.counts.shape[1]
        rows, source = place < number, place.clamp(max=number - 1)
        return replace(self.where(rows, some.at(source)), alarm=some.alarm)

    def extend(self, left: int) -> Carry:
        """With columns of padding put before every row; fewer than none take columns off."""
        padded = {name: pad(getattr(self.proposal, name), (left, 0)) for name in ("tokens", "reason")}
        proposal = replace(self.proposal, **padded, confidence=None, states=None)
        return replace(self, canvases=extend(self.canvases, left), proposal=proposal)


KEPT = ("tokens", "reason", "live", "log_confidence")
"""What a round reads of the proposal before it; its confidences are written by its commit and read no more."""


@dataclass(frozen=True)
class Sight:
    """One forward over the live canvases.

    Attributes:
        reading: of all of them.
        used: canvases of each row that ran.
        positions: computed for each row.
    """

    reading: Reading
    used: Int[Tensor, " B"]
    positions: Int[Tensor, " B"]

    def at(self, index: Int[Tensor, " N"]) -> Sight:
        """That of some rows."""
        return Sight(self.reading.map(lambda v: v[index]), self.used[index], self.positions[index])


def first_carry(state: DecodeState, canvases: int) -> Carry:
    """Before the first round: every row as K equal canvases, of which the first runs."""
    nothing = Reading.empty(tuple(state.tokens.shape), state.tokens.device)
    one = Proposal.single(state, nothing, state.reason)
    wide = {n: getattr(one, n).expand(-1, canvases, -1) for n in ("tokens", "reason")}
    first = torch.arange(canvases, device=state.tokens.device) == 0
    proposal = replace(one, **wide, live=one.live & first, log_confidence=one.log_confidence.expand(-1, canvases))
    counts = torch.zeros(4, len(state.tokens), dtype=torch.long, device=state.tokens.device)
    return Carry(state.repeat(canvases), proposal, counts, torch.zeros((), dtype=torch.long, device=counts.device))


def decided(policy: Policy, carry: Carry, sight: Sight) -> tuple[DecodeState, Reading]:
    """The canvas kept of every row, its forward counted, and its reading."""
    state, reading = policy.settle(carry.canvases, carry.proposal, sight.reading)
    return state.count(reading), reading


def counted(counts: Int[Tensor, "4 B"], used: Int[Tensor, " B"], positions: Int[Tensor, " B"]) -> Int[Tensor, "4 B"]:
    """The counts with one forward more.

    Args:
        counts: before it.
        used: canvases of each row that ran.
        positions: computed for each row.
    """
    return counts + torch.stack([(used > 0).long(), used, positions, (used > 1).long()])


def committed(
    state: DecodeState, reading: Reading, proposal: Proposal, counts: Int[Tensor, "4 B"], idle_rounds: int
) -> Carry:
    """What the next round starts from.

    Args:
        state: before the commit.
        reading: of that state.
        proposal: what is committed.
        counts: what the decode has cost so far.
        idle_rounds: of a row that may commit nothing.
    """
    canvases = commit(state, reading, proposal)
    idle = canvases.masked.sum(-1) >= state.masked.sum(-1, keepdim=True)
    late = counts[0] > idle_rounds
    stuck = (idle.all(-1) & state.unfinished & late).any()  # a canvas that only verifies may be idle
    broken = ~reading.log_normaliser.isfinite().all()
    alarm = stuck.long() + 2 * broken.long()
    return Carry(canvases, proposal, counts, alarm if proposal.broken is None else alarm + 4 * proposal.broken.long())


def worked_out(policy: Policy, carry: Carry, sight: Sight, idle_rounds: int) -> Carry:
    """All that a forward leads to: the canvas kept, what the policy proposes and its commit.

    Args:
        policy: decides.
        carry: of the round before.
        sight: of the forward.
        idle_rounds: of a row that may commit nothing.
    """
    state, reading = decided(policy, carry, sight)
    counts = counted(carry.counts, sight.used, sight.positions)
    return committed(state, reading, policy.propose(state, reading), counts, idle_rounds)


def counts_of(counts: Int[Tensor, "4 B"], nfe: int) -> Counts:
    """The figures by name."""
    return Counts(counts[0], counts[1], counts[2], counts[3], nfe)
