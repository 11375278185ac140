"""What a round is made of: the forward over the live canvases, what the policy makes of it, and the commit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from decoding.policy import Policy, newest_block
from decoding.reading import Reading, Sampling, read
from decoding.state import DecodeState, Proposal, commit
from models.denoiser import Denoiser, Prediction
from models.earlier import Earlier, narrowed

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
    """

    state: DecodeState
    reading: Reading
    proposal: Proposal | None
    counts: Counts


@dataclass(frozen=True)
class Carry:
    """What one round hands to the next.

    Attributes:
        canvases: K of each row, after the last commit.
        proposal: that made them.
        counts: rounds, sequence forwards, token positions and explored rounds of each row so far.
        alarm: 1 if a row that was unfinished gained nothing by that commit, and 2 more if logits were NaN or infinite.
    """

    canvases: DecodeState
    proposal: Proposal
    counts: Int[Tensor, "4 B"]
    alarm: Int[Tensor, ""]

    @property
    def live(self) -> Bool[Tensor, "B K"]:
        """Canvases that the next forward reads."""
        return self.proposal.live & self.canvases.unfinished


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


def counted(carry: Carry, sight: Sight) -> Int[Tensor, "4 B"]:
    """The counts with one forward more."""
    used = sight.used
    return carry.counts + torch.stack([(used > 0).long(), used, sight.positions, (used > 1).long()])


def committed(state: DecodeState, reading: Reading, proposal: Proposal, counts: Int[Tensor, "4 B"]) -> Carry:
    """What the next round starts from.

    Args:
        state: before the commit.
        reading: of that state.
        proposal: what is committed.
        counts: what the decode has cost so far.
    """
    canvases = commit(state, reading, proposal)
    idle = canvases.masked.sum(-1) >= state.masked.sum(-1, keepdim=True)
    stuck = (idle.all(-1) & state.unfinished).any()  # a canvas that only verifies may be idle
    broken = ~reading.log_normaliser.isfinite().all()
    return Carry(canvases, proposal, counts, stuck.long() + 2 * broken.long())


def counts_of(counts: Int[Tensor, "4 B"], nfe: int) -> Counts:
    """The figures by name."""
    return Counts(counts[0], counts[1], counts[2], counts[3], nfe)


class Driver(ABC):
    """What the decode loop drives: `look`, `propose` and `commit` in turn, until nothing is left to look at.

    Args:
        denoiser: predicts.
        policy: decides.
        attention_mask: False on padding, or None.
        sampling: how candidates are drawn.
        generator: of every draw.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        policy: Policy,
        *,
        attention_mask: Bool[Tensor, "B L"] | None,
        sampling: Sampling,
        generator: torch.Generator | None,
    ) -> None:
        self.denoiser, self.policy, self.attention_mask = denoiser, policy, attention_mask
        self.sampling, self.generator, self.nfe = sampling, generator, 0
        self.carry: Carry
        self.sight: Sight
        self.round: Round

    @abstractmethod
    def enter(self, state: DecodeState, *, watched: bool) -> None:
        """Begin with a batch; `watched` if every round is to be shown."""

    @abstractmethod
    def look(self) -> bool:
        """Run the next forward; False where no canvas is left to run."""

    def propose(self) -> Round | None:
        """The round, before its commit; None where it is not shown."""
        state, reading = decided(self.policy, self.carry, self.sight)
        counts = counts_of(counted(self.carry, self.sight), self.nfe)
        self.round = Round(state, reading, self.policy.propose(state, reading), counts)
        return self.round

    def commit(self) -> None:
        """Write what was proposed."""
        state, reading, proposal = self.round.state, self.round.reading, self.round.proposal
        assert proposal is not None
        self.carry = committed(state, reading, proposal, counted(self.carry, self.sight))

    def leave(self) -> Round:
        """The last round: nothing is left to propose."""
        shape, device = tuple(self.carry.canvases.tokens.shape), self.carry.canvases.tokens.device
        nothing = Reading.empty(shape, device)
        state, reading = self.policy.settle(self.carry.canvases, self.carry.proposal, nothing)
        return Round(state, reading, None, counts_of(self.carry.counts, self.nfe))

    def close(self) -> None:  # noqa: B027 - a driver that holds nothing has nothing to give back
        """The decode is over, or left."""

    def most_rounds(self) -> int | None:
        """Rounds of a decode at most, where the policy may have some without a gain."""
        needs = self.policy.needs
        return int((self.carry.canvases.layout.block >= 0).sum()) if needs.losses else needs.rounds

    def heed(self, alarm: int) -> None:
        """Refuse logits that are none, and a round without a commit, in a rule that may have some a round beyond its last."""
        most = self.most_rounds() if alarm else None
        if alarm >= 2:
            cause = "a weight is damaged, or the number format overflows"
            raise ValueError(
                f"logits of the model must be finite, got NaN or infinity from forward {self.nfe} ({cause})"
            )
        if alarm and (most is None or self.nfe >= most):
            rule = "a policy must commit a position of every unfinished row in a round"
            raise RuntimeError(f"{rule}, got none in round {self.nfe} from {self.policy!r}")


@final
class PlainDriver(Driver):
    """Only the live canvases run; the host waits to learn which."""

    def enter(self, state: DecodeState, *, watched: bool) -> None:
        """One canvas for each row; the first proposal makes as many as it wants."""
        batch, length = state.tokens.shape
        memory = torch.zeros(batch, self.policy.needs.memory, length, device=state.tokens.device)
        self.carry = first_carry(replace(state, memory=memory), 1)
        self.earlier = Earlier(batch, length, state.tokens.device) if self.policy.needs.earlier else None

    def look(self) -> bool:
        """Pack the live canvases, run them, and spread what they say."""
        canvases, index = self.carry.canvases, self.carry.live.nonzero()  # the one small tensor the host waits for
        if not len(index):
            return False
        row = index[:, 0]
        prediction = self.predict(canvases, index)
        shape = (canvases.tokens.shape[0], canvases.tokens.shape[1])
        reading = self.understood(prediction, canvases, index).scatter(index, shape)
        used = torch.bincount(row, minlength=shape[0])
        self.sight = Sight(reading, used, torch.zeros_like(used).index_add(0, row, prediction.positions))
        self.nfe += 1
        return True

    def predict(self, canvases: DecodeState, index: Int[Tensor, "N 2"]) -> Prediction:
        """One forward over the live canvases, of the kind that the policy needs."""
        needs, (row, branch) = self.policy.needs, index.unbind(-1)
        tokens, mask = canvases.tokens[row, branch], self.seen(canvases, index)
        rows = needs.asked(canvases)[row, branch]
        if needs.shadows:
            shadows = newest_block(canvases)[row, branch].nonzero()[:, 1].view(len(row), -1)
            return self.denoiser.shadowed(tokens, shadows, attention_mask=mask, rows=rows)
        if needs.maps:
            rows = rows if mask is None else rows & mask.bool()
            return self.denoiser.attended(tokens, needs.maps, attention_mask=mask, rows=rows)
        return self.denoiser(
            tokens,
            attention_mask=mask,
            rows=rows,
            taps=needs.taps,
            owner=row,
            refresh=canvases.spent[row, branch] == 0,
        )

    def seen(self, canvases: DecodeState, index: Int[Tensor, "N 2"]) -> Bool[Tensor, "N L"] | None:
        """What each canvas may attend to: all but the padding, and but what the policy hides."""
        row, branch = index.unbind(-1)
        mask = None if self.attention_mask is None else self.attention_mask[row]
        if not self.policy.needs.hides or canvases.layout.cached:  # a cache holds the keys and values of all
            return mask
        visible = self.policy.visible(canvases)[row, branch]
        return visible if mask is None else mask & visible

    def understood(self, prediction: Prediction, canvases: DecodeState, index: Int[Tensor, "N 2"]) -> Reading:
        """The reading of the canvases, with how far it moved from the one before where the policy asks for it."""
        row, branch = index.unbind(-1)
        if self.earlier is None:
            standing = (
                canvases.tokens.masked_fill(canvases.masked, -1)[row, branch] if self.policy.needs.shadows else None
            )
            return read(prediction, self.sampling, self.generator, standing)
        drift = self.earlier.drift(prediction, row)
        reading = read(narrowed(prediction, canvases.feasible[row, branch]), self.sampling, self.generator)
        return replace(reading, drift=drift.masked_fill(~reading.rows, 0.0))

    def commit(self) -> None:
        """Write what was proposed, and see that it was something."""
        super().commit()
        self.heed(int(self.carry.alarm))
