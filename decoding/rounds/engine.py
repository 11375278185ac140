"""Rounds on an engine's buffers: every shape is fixed, and the host reads one small tensor a round."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast, final

import torch
from jaxtyping import Bool
from torch import Tensor

from decoding.calls.waiting import Entry
from decoding.policy import identity_of
from decoding.reading import Reading, read, reading_of_figures
from decoding.rounds.desk import Desk, entered, packed_state, seated
from decoding.rounds.driver import Driver
from decoding.rounds.round import (
    Carry,
    Round,
    Sight,
    committed,
    counted,
    counts_of,
    decided,
    first_carry,
    worked_out,
)
from decoding.state import DecodeState, extend
from models.denoiser import Prediction
from models.engine.graphs import compiled, on
from models.engine.plan import order_of, places_of
from models.engine.session import Session, Shape, copy_all
from models.engine.window import NUMBERS

COLUMNS = 64  # canvases have a multiple of this many positions, so that few shapes serve all lengths
FEW = 8  # rows that are served together however few of them run


@final
class EngineDriver(Driver):
    """Every canvas has its place in the engine's buffers, whether it runs or not.

    Forwards are graphs. So are what the policy makes of them and how rows begin, join and end, unless something is drawn, or
    someone watches, or the policy waits for the host.
    """

    session: Session
    desk: Desk
    captures = True
    left = width = served = 0
    identity: Hashable = None

    def enter(self, state: DecodeState, *, watched: bool) -> None:
        """Put a batch into the buffers of its shape."""
        sampling = self.sampling
        self.draws = sampling.at_random or len(sampling.unconfident) > 0
        self.captures = not self.draws and not watched
        self.number = torch.arange(len(state.tokens), device=self.denoiser.device)
        if self.queue is not None:
            state, self.attention_mask = extend(state, max(0, self.queue.widest - state.tokens.shape[-1])), None
        self._open(state)
        self.identity = identity_of(self.policy, self.denoiser.engine.versions.of)  # the engine may have moved weights

    def _open(self, state: DecodeState) -> None:
        """Take the buffers of a shape and fill them."""
        needs, (batch, length) = self.needs, state.tokens.shape
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
        state = self.placed(state)
        self.attention_mask = (
            torch.ones_like(state.masked) if mask is None else cast(Tensor, self.attention_mask).bool()
        )
        self.session.begin(self.attention_mask)
        self.carry = first_carry(state, needs.canvases)
        self._prepare()

    def _enter(self, state: DecodeState, mask: Bool[Tensor, "B L"] | None) -> None:
        """The same, kept where the graphs of the rounds read it."""
        canvases, device = self.needs.canvases, self.denoiser.device
        desk = self.session.desk or Desk.for_batches(state, self.left, canvases, device)
        desk.put(state, mask, self.left)
        self.desk = self.session.desk = desk.laid_out(state.layout)  # its numbers are of this decode
        self.carry = self.desk.carry
        begin, held = compiled(entered, device), (self.desk.state, self.desk.like, canvases)
        self._replay("begin", lambda: self._begin(begin(*held), self.desk.mask))

    def _begin(self, carry: Carry, mask: Tensor, *new: Tensor) -> None:
        self.desk.write(carry)
        self.session.begin(mask, *new)
        self._prepare()

    def _replay(self, name: str, step: Callable[[], None], *more: Hashable) -> None:
        """Take a step on the buffers, by its graph from the second time on; taking it twice in a row is as taking it once.

        Args:
            name: of the step.
            step: reads and writes buffers of the session and its desk alone.
            more: what else it depends on.
        """
        key = (self.session.shape, name, self.carry.canvases.layout, *more)
        self.denoiser.engine.graphs.run(key, step, first=1)

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
            join, opened = compiled(seated, self.denoiser.device), self.policy.initial_blocks
            held = (self.desk.sent, self.carry, self.session.seen)
            self._replay("join", lambda: self._begin(*join(*held, opened)), opened)
            return
        super().seat(entries)
        new = torch.zeros_like(self.number, dtype=torch.bool)
        new[torch.tensor(list(entries), device=new.device)] = True
        self.session.begin(cast(Tensor, self.attention_mask), new)
        self._prepare()

    def _prepare(self) -> None:
        rows, live, opens = compiled(Carry.asked, self.denoiser.device)(self.carry)
        self.session.prepare(self.carry.canvases.tokens, rows, live, opens, self.carry.alarm)

    def look(self) -> bool:
        """Replay the forwards that the plan asks for."""
        told = self.session.plan.flags.tolist()  # the one small tensor the host waits for
        self.heed(told[4])
        if self.queue is not None and self.turn_over({place for place, runs in enumerate(told[5:]) if runs}):
            told = self.session.plan.flags.tolist()
        flags, runs = told[:4], told[5:]
        if not flags[0] + flags[1]:
            return False
        self.served = served(len(runs), sum(runs)) if self.needs.taps else len(runs)
        self.width = self.session.forward(flags)
        self.nfe += 1
        return True

    def propose(self) -> Round | None:
        """The round where it is shown; a graph does not show it."""
        if self.captures:
            return None
        with on(self.denoiser.device):
            self.sight = self._tapped(self._see(), self._numbers())
            return super().propose()

    def commit(self) -> None:
        """What the policy makes of the forwards, and the plan of the next round."""
        if not self.captures:
            super().commit()
            self._prepare()
            return
        layout, taps = self.carry.canvases.layout, self.needs.taps
        key = (self.session.shape, "turn", self.identity, self.width if taps else 0, self.served, layout)
        self.denoiser.engine.graphs.run(key, self._turn, self._store)

    def _turn(self) -> Carry:
        """A round after its forward, as a tensor program on what the buffers hold: of the rows that run, where few do."""
        carry, sight, plan, device = self.carry, self._see(), self.session.plan, self.denoiser.device
        if self.served == len(self.number):
            return self._worked_out(carry, self._tapped(sight, self._numbers()))
        choose = compiled(running, device)
        some, few, numbers, place = choose((plan.part, plan.whole), carry, sight, self._numbers(), self.served)
        return compiled(Carry.put, device)(carry, self._worked_out(some, self._tapped(few, numbers)), place)

    def _worked_out(self, carry: Carry, sight: Sight) -> Carry:
        if self.policy.fused:
            return compiled(worked_out, self.denoiser.device)(self.policy, carry, sight, self.idle_rounds)
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
        if not self.draws:
            see, rows = compiled(sight_of, session.rows.device), session.rows
            rows = rows if self.captures else rows.clone()  # a hook may keep what it is shown
            return see(rows, (session.floats, session.ints), (plan.part, plan.whole), plan.positions)
        live = plan.part | plan.whole
        return Sight(self._drawn(live, tuple(session.rows.shape)), live.sum(-1), plan.positions.sum(-1))

    def _numbers(self) -> tuple[Tensor, ...]:
        """Which canvases and prompts a head's taps are of, and the first row asked for; nothing without taps."""
        taps = self.needs.taps
        one = self.session.taps[taps[0]] if taps else None
        return () if one is None else tuple(getattr(one, name) for name in NUMBERS)

    def _tapped(self, sight: Sight, numbers: tuple[Tensor, ...]) -> Sight:
        """With what the head reads of the forward."""
        places: dict[str, Any] = dict(zip(NUMBERS, numbers, strict=False))
        taps = (replace(self.session.taps[tap], width=self.width, **places) for tap in self.needs.taps)
        return replace(sight, reading=replace(sight.reading, taps=tuple(taps)))

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
        self._replay("end", self._end, self.identity)
        left = self.left if rows is None else 0
        state, counts = self.desk.ended(rows, left)
        nothing = self.desk.nothing.map(lambda v: v[: len(state.tokens), left:])
        return Round(state, nothing, None, counts_of(counts, self.nfe))

    def _end(self) -> None:
        last = self.policy.last(self.carry.canvases, self.carry.proposal)
        copy_all(list(self.desk.state), list(packed_state(last, self.carry.counts)))

    def close(self) -> None:
        """The buffers are free for another decode."""
        self.denoiser.engine.in_use.release()


def served(rows: int, running: int) -> int:
    """How many rows of a batch are worked out after a forward: all, or a quarter, a sixteenth, ... that holds those that run."""
    fewer = rows // 4
    return served(fewer, running) if fewer >= max(running, FEW) else rows


def sight_of(
    rows: Bool[Tensor, "B K L"], figures: tuple[Tensor, Tensor], computed: tuple[Tensor, Tensor], positions: Tensor
) -> Sight:
    """The sight of a forward, without taps.

    Args:
        rows: positions asked for.
        figures: of all canvases, floats and whole numbers.
        computed: canvases computed in part, and whole.
        positions: computed of each canvas.
    """
    floats, ints = (torch.unflatten(found, 0, rows.shape[:2]) for found in figures)
    live, reading = computed[0] | computed[1], reading_of_figures(rows, floats, ints)
    dense = reading.map(torch.Tensor.contiguous)  # laid out as that of some rows is, so that one program serves both
    return Sight(dense, live.sum(-1), positions.sum(-1))


def running(
    computed: tuple[Tensor, Tensor], carry: Carry, sight: Sight, numbers: tuple[Tensor, ...], count: int
) -> tuple[Carry, Sight, tuple[Tensor, ...], Tensor]:
    """Some rows of a batch, those first that have a canvas to compute: their carry, sight and numbers, and the place of each row.

    Args:
        computed: canvases computed in part, and whole.
        carry, sight: of all rows.
        numbers: of all canvases.
        count: of the rows taken, at least those that run.
    """
    runs = (computed[0] | computed[1]).any(-1)
    index = order_of(runs)[:count]
    return carry.at(index), sight.at(index), tuple(one[index] for one in numbers), places_of(runs)


def _padding(mask: Bool[Tensor, "B L"]) -> tuple[bool, bool]:
    """Whether there is padding, and whether some follows a token."""
    gaps, holes = torch.stack([~mask.all(), (mask[:, :-1] & ~mask[:, 1:]).any()]).tolist()
    return gaps, holes
