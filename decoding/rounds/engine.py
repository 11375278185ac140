"""Rounds on an engine's buffers: every shape is fixed, and the host reads one small tensor a round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast, final

import torch
from jaxtyping import Bool
from torch import Tensor

from decoding.calls.waiting import Entry
from decoding.reading import Reading, read, reading_of_figures
from decoding.rounds.desk import Desk, entered, packed_state, seated
from decoding.rounds.driver import Driver
from decoding.rounds.round import Carry, Round, Sight, committed, counted, counts_of, decided, first_carry
from decoding.state import DecodeState, extend
from models.denoiser import Prediction
from models.engine.graphs import compiled
from models.engine.plan import order_of, places_of
from models.engine.session import Session, Shape

COLUMNS = 64  # canvases have a multiple of this many positions, so that few shapes serve all lengths
FEW = 8  # rows that are served together however few of them run


@final
class EngineDriver(Driver):
    """Every canvas has its place in the engine's buffers, whether it runs or not.

    Forwards are graphs. What the policy makes of them is one too, unless something is drawn, or someone watches, or the policy
    waits for the host.
    """

    session: Session
    desk: Desk
    captures = True
    left = width = served = 0
    version = 0

    def enter(self, state: DecodeState, *, watched: bool) -> None:
        """Put a batch into the buffers of its shape."""
        sampling = self.sampling
        self.draws = sampling.at_random or len(sampling.unconfident) > 0
        self.captures = not self.draws and not watched
        head = getattr(self.policy, "head", None)
        self.version = 0 if head is None else self.denoiser.engine.versions.of(head)
        self.number = torch.arange(len(state.tokens), device=state.tokens.device)
        if self.queue is not None:
            state, self.attention_mask = extend(state, max(0, self.queue.widest - state.tokens.shape[-1])), None
        self._open(state)

    def _open(self, state: DecodeState) -> None:
        """Take the buffers of a shape and fill them."""
        needs, (batch, length) = self.policy.needs, state.tokens.shape
        self.left = -length % COLUMNS if self.captures else 0
        self.room, mask = length + self.left, self.attention_mask
        gaps, holes = (False, False) if mask is None else _padding(mask.bool())
        shape = Shape(
            prompts=batch,
            canvases=needs.canvases,
            length=self.room,
            mode=getattr(getattr(self.denoiser, "cache", None), "mode", "none"),
            taps=tuple(needs.taps),
            padded=self.queue is not None or self.left > 0 or gaps,
            holes=holes,
            forbidden=self.sampling.forbidden,
            logits=self.draws,
        )
        self.session = self.denoiser.engine.session(shape)
        if self.captures:
            self._enter(state, mask)
            return
        self.attention_mask = torch.ones_like(state.masked) if mask is None else mask.bool()
        self.session.begin(self.attention_mask)
        self.carry = first_carry(state, needs.canvases)
        self._prepare()

    def _enter(self, state: DecodeState, mask: Bool[Tensor, "B L"] | None) -> None:
        """The same, kept where the graphs of the rounds read it."""
        canvases, device = self.policy.needs.canvases, self.denoiser.device
        desk = self.session.desk or Desk.like(state, self.left, canvases)
        desk.put(state, mask, self.left)
        layout = state.layout  # its numbers are of this decode
        carry = replace(desk.carry, canvases=replace(desk.carry.canvases, layout=layout))
        self.desk = self.session.desk = replace(desk, carry=carry, state=replace(desk.state, layout=layout))
        self.carry, desk = self.desk.carry, self.desk
        begin = compiled(entered, device)
        self._begin(*begin(desk.state, desk.mask, desk.left, canvases))

    def _begin(self, carry: Carry, mask: Tensor, *new: Tensor) -> None:
        self.desk.write(carry)
        self.session.begin(mask, *new)
        self._prepare()

    def seat(self, entries: Mapping[int, Entry]) -> None:
        """Let prompts begin, in buffers that hold them; only where none runs may these be too narrow."""
        widest = max(entry.size for entry in entries.values())
        if self.room is None or widest > self.room:
            assert self.queue is not None
            self.attention_mask, kept = None, self.carry.canvases.map(lambda v: v[:, 0])
            self._open(extend(kept, max(widest, self.queue.widest) - kept.tokens.shape[-1]))
        if self.captures:
            self.seats |= entries
            self.desk.send(entries)
            join = compiled(seated, self.denoiser.device)
            self._begin(*join(self.desk.sent, self.carry, self.session.seen, self.policy.initial_blocks))
            return
        super().seat(entries)
        new = torch.zeros_like(self.number, dtype=torch.bool)
        new[torch.tensor(list(entries), device=new.device)] = True
        self.session.begin(cast(Tensor, self.attention_mask), new)
        self._prepare()

    def _prepare(self) -> None:
        carry, canvases = self.carry, self.carry.canvases
        self.session.prepare(canvases.tokens, canvases.feasible, carry.live, canvases.spent == 0, carry.alarm)

    def look(self) -> bool:
        """Replay the forwards that the plan asks for."""
        told = self.session.plan.flags.tolist()  # the one small tensor the host waits for
        self.heed(told[4])
        if self.queue is not None and self.turn_over({place for place, runs in enumerate(told[5:]) if runs}):
            told = self.session.plan.flags.tolist()
        flags, runs = told[:4], told[5:]
        if not flags[0] + flags[1]:
            return False
        self.served = served(len(runs), sum(runs)) if self.policy.needs.taps else len(runs)
        self.width = self.session.forward(flags)
        self.nfe += 1
        return True

    def propose(self) -> Round | None:
        """The round where it is shown; a graph does not show it."""
        if self.captures:
            return None
        self.sight = self._see()
        return super().propose()

    def commit(self) -> None:
        """What the policy makes of the forwards, and the plan of the next round."""
        if not self.captures:
            super().commit()
            self._prepare()
            return
        layout, taps = self.carry.canvases.layout, self.policy.needs.taps
        key = (self.session.shape, "turn", self.policy, self.width if taps else 0, self.served, layout, self.version)
        self.denoiser.engine.graphs.run(key, self._turn, self._store)

    def _turn(self) -> Carry:
        """A round after its forward, as a tensor program on what the buffers hold: of the rows that run, where few do."""
        carry, sight, plan, device = self.carry, self._see(), self.session.plan, self.denoiser.device
        if self.served == len(self.number):
            return self._worked_out(carry, sight)
        order, place = compiled(running_first, device)(plan.part, plan.whole)
        index = order[: self.served]
        return compiled(Carry.put, device)(carry, self._worked_out(carry.at(index), sight.at(index)), place)

    def _worked_out(self, carry: Carry, sight: Sight) -> Carry:
        state, reading = decided(self.policy, carry, sight)
        proposal = self.policy.propose(state, reading)
        finish = compiled(committed, self.denoiser.device)
        counts = compiled(counted, self.denoiser.device)(carry.counts, sight.used, sight.positions)
        return finish(state, replace(reading, taps=()), proposal, counts, self.idle_rounds)

    def _store(self, made: Carry) -> None:
        self.desk.write(made)
        self._prepare()

    def _see(self) -> Sight:
        """What the forwards left in the buffers."""
        session, plan = self.session, self.session.plan
        live, shape = plan.part | plan.whole, tuple(self.session.rows.shape)
        if self.draws:
            reading = self._drawn(live, shape)
        else:
            floats, ints = (torch.unflatten(found, 0, shape[:2]) for found in (session.floats, session.ints))
            reading = compiled(reading_of_figures, live.device)(session.rows, floats, ints)
        taps = tuple(replace(session.taps[tap], width=self.width) for tap in self.policy.needs.taps)
        return Sight(replace(reading, taps=taps), live.sum(-1), plan.positions.sum(-1))

    def _drawn(self, live: Bool[Tensor, "B K"], shape: tuple[int, ...]) -> Reading:
        """What is drawn follows the live canvases in their order, as it does without an engine."""
        session, index = self.session, live.nonzero()
        row, branch = index.unbind(-1)
        rows, first = session.rows[row, branch], session.plan.first[row, branch]
        place = first.unsqueeze(-1) + torch.arange(self.width, device=first.device)
        asked = rows.gather(1, place.clamp(max=shape[-1] - 1)) & (place < shape[-1])
        assert session.logits is not None
        logits = session.logits[row * shape[1] + branch, : self.width][asked]
        prediction = Prediction(logits, rows, session.plan.positions[row, branch])
        return read(prediction, self.sampling, self.chances(row, branch)).scatter(index, (shape[0], shape[1]))

    def settled(self, rows: Sequence[int] | None = None) -> Round:
        """All rows in the end, without the columns that only fill the buffers, or some of a queue's; in memory of their own."""
        if not self.captures:
            return super().settled(rows)
        last = self.policy.settle(self.carry.canvases, self.carry.proposal, self.desk.nothing_of(self.carry))[0]
        left = self.left if rows is None else 0
        state, counts = self.desk.ended(packed_state(last, self.carry.counts), rows, left)
        nothing = self.desk.nothing.map(lambda v: v[: len(state.tokens), left:])
        return Round(state, nothing, None, counts_of(counts, self.nfe))

    def close(self) -> None:
        """The buffers are free for another decode."""
        self.denoiser.engine.in_use.release()


def served(rows: int, running: int) -> int:
    """How many rows of a batch are worked out after a forward: all, or a quarter, a sixteenth, ... that holds those that run."""
    fewer = rows // 4
    return served(fewer, running) if fewer >= max(running, FEW) else rows


def running_first(part: Bool[Tensor, "B K"], whole: Bool[Tensor, "B K"]) -> tuple[Tensor, Tensor]:
    """The numbers of all rows, those first that have a canvas to compute, and where each stands in that order."""
    runs = (part | whole).any(-1)
    return order_of(runs), places_of(runs)


def _padding(mask: Bool[Tensor, "B L"]) -> tuple[bool, bool]:
    """Whether there is padding, and whether some follows a token."""
    gaps, holes = torch.stack([~mask.all(), (mask[:, :-1] & ~mask[:, 1:]).any()]).tolist()
    return gaps, holes
