"""What the decode loop drives: forward, proposal and commit of a batch, and which prompts sit in its rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from decoding.calls.draws import Chances, Counter, InOrder
from decoding.calls.waiting import Entry, Queue, joining, packed
from decoding.policy import Policy
from decoding.reading import Reading
from decoding.rounds.round import Carry, Round, Sight, committed, counted, counts_of, decided, first_carry
from decoding.sampling import Sampling
from decoding.state import DecodeState
from models.complaints import shown
from models.denoiser import Denoiser


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
        self.needs = policy.needs
        self.seats: dict[int, Entry] = {}
        self.number: Int[Tensor, " B"]
        self.carry: Carry
        self.sight: Sight
        self.round: Round

    @abstractmethod
    def enter(self, state: DecodeState, *, watched: bool) -> None:
        """Begin with a batch, on whatever device; `watched` if every round is to be shown."""

    def placed(self, state: DecodeState) -> DecodeState:
        """A batch to begin with, and its mask, on the denoiser's device."""
        if self.attention_mask is not None:
            self.attention_mask = self.attention_mask.to(self.denoiser.device)
        return state.to(self.denoiser.device)

    def settled(self, rows: Sequence[int] | None = None) -> Round:
        """All rows or some once they have ended."""
        state = self.policy.last(self.carry.canvases, self.carry.proposal)
        device, reading = state.tokens.device, Reading.empty(tuple(state.tokens.shape), state.tokens.device)
        if rows is None:
            return Round(state, reading, None, counts_of(self.carry.counts, self.nfe))
        index = torch.tensor(rows, device=device)
        counts = counts_of(self.carry.counts[:, index], self.nfe)
        return Round(state.map(lambda v: v[index]), reading, None, counts)

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
        return replace(self.settled(places), entries=tuple(self.seats.pop(place) for place in places))

    def seat(self, entries: Mapping[int, Entry]) -> None:
        """Let prompts begin at these places of the batch."""
        self.seats |= entries
        canvases = self.carry.canvases
        batch, branches, width = canvases.tokens.shape
        sent = packed(entries, batch=batch, width=width).to(canvases.tokens.device)
        new = joining(sent, canvases.layout, initial_blocks=self.policy.initial_blocks)
        assert self.attention_mask is not None
        self.attention_mask = torch.where(new.rows.unsqueeze(-1), new.attention_mask, self.attention_mask)
        self.number = torch.where(new.rows, new.number, self.number)
        self.carry = self.carry.where(new.rows, self.begun(new.state, branches))

    def begun(self, state: DecodeState, canvases: int) -> Carry:
        """Before the first round, with nothing in the policy's memory."""
        batch, length = state.tokens.shape
        memory = torch.zeros(batch, self.needs.memory, length, device=state.tokens.device)
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
        counts = counts_of(self._counted(), self.nfe)
        self.round = Round(state, reading, self.policy.propose(state, reading), counts)
        return self.round

    def commit(self) -> None:
        """Write what was proposed."""
        state, reading, proposal = self.round.state, self.round.reading, self.round.proposal
        assert proposal is not None
        self.carry = committed(state, reading, proposal, self._counted(), self.idle_rounds)

    def _counted(self) -> Int[Tensor, "4 B"]:
        return counted(self.carry.counts, self.sight.used, self.sight.positions)

    @property
    def idle_rounds(self) -> int:
        """Rounds of a row that may commit nothing: all but the last of a rule that bounds them, or that has losses."""
        needs = self.needs
        most = int((self.carry.canvases.block >= 0).sum(-1).max()) if needs.losses else needs.rounds
        return 0 if most is None else most - 1

    def leave(self) -> Round:
        """The last round: nothing is left to propose."""
        return self.settled()

    def close(self) -> None:  # noqa: B027 - a driver that holds nothing has nothing to give back
        """The decode is over, or left."""

    def heed(self, alarm: int) -> None:
        """Refuse logits that are none, and a round without a commit, in a rule that may have some a round beyond its last."""
        if alarm >= 4 and not alarm & 2:
            raise ValueError(
                f"figures of the head must be finite, got NaN or infinity after forward {self.nfe} (a tensor of it is damaged)"
            )
        if alarm >= 2:
            cause = "a weight is damaged, or the number format overflows"
            raise ValueError(
                f"logits of the model must be finite, got NaN or infinity from forward {self.nfe} ({cause})"
            )
        if alarm:
            rule = "a policy must commit a position of every unfinished row in a round"
            raise RuntimeError(f"{rule}, got none in round {self.nfe} from {shown(self.policy)}")
