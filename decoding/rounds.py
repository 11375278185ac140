"""What a round is made of: the forward over the live canvases, what the policy makes of it, and the commit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.functional import pad

from decoding.calls.draws import Chances, Counter, InOrder
from decoding.calls.waiting import Entry, Queue, join
from decoding.policy import Policy
from decoding.reading import Reading, Sampling
from decoding.state import DecodeState, Proposal, commit, extend
from models.denoiser import Denoiser

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
        queue: prompts that take the places of rows that have ended, or None.
    """

    room: int | None = None
    ended: tuple[Round, ...] = ()

    def __init__(
        self,
        denoiser: Denoiser,
        policy: Policy,
        *,
        attention_mask: Bool[Tensor, "B L"] | None,
        sampling: Sampling,
        generator: torch.Generator | Counter | None,
        queue: Queue | None = None,
    ) -> None:
        self.denoiser, self.policy, self.attention_mask = denoiser, policy, attention_mask
        self.sampling, self.generator, self.queue, self.nfe = sampling, generator, queue, 0
        self.seats: dict[int, Entry] = {}
        self.number: Int[Tensor, " B"]
        self.carry: Carry
        self.sight: Sight
        self.round: Round

    @abstractmethod
    def enter(self, state: DecodeState, *, watched: bool) -> None:
        """Begin with a batch; `watched` if every round is to be shown."""

    def settled(self) -> Round:
        """All rows, as if nothing were left to propose."""
        shape, device = tuple(self.carry.canvases.tokens.shape), self.carry.canvases.tokens.device
        nothing = Reading.empty(shape, device)
        state, reading = self.policy.settle(self.carry.canvases, self.carry.proposal, nothing)
        return Round(state, reading, None, counts_of(self.carry.counts, self.nfe))

    def turn_over(self, running: Collection[int]) -> bool:
        """Let the rows go that have ended, and seat prompts that wait in their places; whether any came."""
        assert self.queue is not None
        free = [place for place in range(len(self.carry.counts[0])) if place not in running]
        done = [place for place in free if place in self.seats]
        self.ended = (self._let_go(done),) if done else ()
        entries = self.queue.take(len(free), self.room if running else None)
        if entries:
            self.seat(dict(zip(free, entries, strict=False)))
        return bool(entries)

    def _let_go(self, places: list[int]) -> Round:
        """The last round of some rows."""
        all_, index = self.settled(), torch.tensor(places, device=self.denoiser.device)
        counts = counts_of(self.carry.counts[:, index], self.nfe)
        entries = tuple(self.seats.pop(place) for place in places)
        return replace(all_, state=all_.state.map(lambda v: v[index]), counts=counts, entries=entries)

    def seat(self, entries: Mapping[int, Entry]) -> None:
        """Let prompts begin at these places of the batch."""
        self.seats |= entries
        canvases = self.carry.canvases
        batch, branches, width = canvases.tokens.shape
        new = join(
            entries,
            canvases.layout,
            batch=batch,
            width=width,
            initial_blocks=self.policy.initial_blocks,
            device=canvases.tokens.device,
        )
        assert self.attention_mask is not None
        self.attention_mask = torch.where(new.rows.unsqueeze(-1), new.attention_mask, self.attention_mask)
        self.number = torch.where(new.rows, new.number, self.number)
        self.carry = self.carry.where(new.rows, self.begun(new.state, branches))

    def begun(self, state: DecodeState, canvases: int) -> Carry:
        """Before the first round, with nothing in the policy's memory."""
        batch, length = state.tokens.shape
        memory = torch.zeros(batch, self.policy.needs.memory, length, device=state.tokens.device)
        return first_carry(replace(state, memory=memory), canvases)

    def chances(self, row: Int[Tensor, " N"], branch: Int[Tensor, " N"]) -> Chances:
        """What the canvases of the next forward draw."""
        if not isinstance(self.generator, Counter):
            return InOrder(self.generator)
        canvases = self.carry.canvases
        return self.generator.of(self.number[row], canvases.round[row, branch], branch, canvases.tokens.shape[-1])

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
        self.carry = committed(state, reading, proposal, counted(self.carry, self.sight), self.idle_rounds)

    @property
    def idle_rounds(self) -> int:
        """Rounds of a row that may commit nothing: all but the last of a rule that bounds them, or that has losses."""
        needs = self.policy.needs
        most = int((self.carry.canvases.block >= 0).sum(-1).max()) if needs.losses else needs.rounds
        return 0 if most is None else most - 1

    def leave(self) -> Round:
        """The last round: nothing is left to propose."""
        return self.settled()

    def close(self) -> None:  # noqa: B027 - a driver that holds nothing has nothing to give back
        """The decode is over, or left."""

    def heed(self, alarm: int) -> None:
        """Refuse logits that are none, and a round without a commit, in a rule that may have some a round beyond its last."""
        if alarm >= 2:
            cause = "a weight is damaged, or the number format overflows"
            raise ValueError(
                f"logits of the model must be finite, got NaN or infinity from forward {self.nfe} ({cause})"
            )
        if alarm:
            rule = "a policy must commit a position of every unfinished row in a round"
            raise RuntimeError(f"{rule}, got none in round {self.nfe} from {self.policy!r}")
