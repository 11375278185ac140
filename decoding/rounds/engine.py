"""Rounds on an engine's buffers: every shape is fixed, and the host reads five numbers a round."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any, cast, final

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import pad

from decoding.calls.waiting import Entry
from decoding.reading import Reading, read, reading_of_figures
from decoding.rounds.driver import Driver
from decoding.rounds.round import KEPT, Carry, Round, Sight, committed, counted, decided, first_carry
from decoding.state import TENSORS, DecodeState, extend
from models.denoiser import Prediction
from models.engine.graphs import compiled
from models.engine.session import Session, Shape, copy_all
from models.engine.weights import version_of

COLUMNS = 64  # canvases have a multiple of this many positions, so that few shapes serve all lengths


@final
class EngineDriver(Driver):
    """Every canvas has its place in the engine's buffers, whether it runs or not.

    Forwards are graphs. What the policy makes of them is one too, unless something is drawn, or someone watches, or the policy
    waits for the host.
    """

    session: Session
    captures = True
    left = width = 0
    version: tuple[Hashable, ...] = ()

    def enter(self, state: DecodeState, *, watched: bool) -> None:
        """Put a batch into the buffers of its shape."""
        sampling = self.sampling
        self.draws = sampling.at_random or len(sampling.unconfident) > 0
        self.captures = not self.draws and not watched
        head = getattr(self.policy, "head", None)
        self.version = () if head is None else version_of(head)
        self.number = torch.arange(len(state.tokens), device=state.tokens.device)
        if self.queue is not None:
            state, self.attention_mask = extend(state, max(0, self.queue.widest - state.tokens.shape[-1])), None
        self._open(state)

    def _open(self, state: DecodeState) -> None:
        """Take the buffers of a shape and fill them."""
        needs, (batch, length) = self.policy.needs, state.tokens.shape
        self.left = -length % COLUMNS if self.captures else 0
        self.room = length + self.left
        mask = torch.ones_like(state.tokens, dtype=torch.bool) if self.attention_mask is None else self.attention_mask
        mask = self.attention_mask = pad(mask.bool(), (self.left, 0))
        shape = Shape(
            prompts=batch,
            canvases=needs.canvases,
            length=self.room,
            mode=getattr(getattr(self.denoiser, "cache", None), "mode", "none"),
            taps=tuple(needs.taps),
            padded=self.queue is not None or not bool(mask.all()),
            holes=bool((mask[:, :-1] & ~mask[:, 1:]).any()),
            forbidden=self.sampling.forbidden,
            logits=self.draws,
        )
        self.session = self.denoiser.engine.session(shape)
        self.session.begin(mask)
        self._fill(first_carry(extend(state, self.left), needs.canvases))

    def _fill(self, first: Carry) -> None:
        self.carry = first
        if self.captures:
            kept = self.session.carry or _own(first)
            layout = first.canvases.layout  # its numbers are of this decode
            self.session.carry = self.carry = replace(kept, canvases=replace(kept.canvases, layout=layout))
            copy_all(_tensors(self.carry), _tensors(first))
        self._prepare()

    def seat(self, entries: Mapping[int, Entry]) -> None:
        """Let prompts begin, in buffers that hold them; only where none runs may these be too narrow."""
        widest, kept = max(entry.size for entry in entries.values()), self.carry
        if self.room is None or widest > self.room:
            assert self.queue is not None
            self.attention_mask = None
            self._open(
                extend(
                    kept.canvases.map(lambda v: v[:, 0]),
                    max(widest, self.queue.widest) - kept.canvases.tokens.shape[-1],
                )
            )
            kept = self.carry
        super().seat(entries)
        if self.captures:
            made, self.carry = self.carry, kept
            copy_all(_tensors(kept), _tensors(made))
        places = torch.tensor(sorted(entries), device=self.number.device)
        self.session.begin(cast(Tensor, self.attention_mask), places)
        self._prepare()

    def _prepare(self) -> None:
        carry, canvases = self.carry, self.carry.canvases
        self.session.prepare(canvases.tokens, canvases.feasible, carry.live, canvases.spent == 0, carry.alarm)

    def look(self) -> bool:
        """Replay the forwards that the plan asks for."""
        *flags, alarm = self.session.plan.flags.tolist()  # the one small tensor the host waits for
        self.heed(alarm)
        if self.queue is not None:
            live = self.carry.live.any(-1).tolist()
            if self.turn_over({place for place, runs in enumerate(live) if runs}):
                *flags, _ = self.session.plan.flags.tolist()
        if not flags[0] + flags[1]:
            return False
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
        key = (self.session.shape, "turn", self.policy, self.width if taps else 0, layout, self.version)
        self.denoiser.engine.graphs.run(key, self._turn, self._store)

    def _turn(self) -> Carry:
        """A round after its forward, as a tensor program on what the buffers hold."""
        sight = self._see()
        state, reading = decided(self.policy, self.carry, sight)
        proposal = self.policy.propose(state, reading)
        finish = compiled(committed, self.denoiser.device)
        counts = counted(self.carry, sight)
        return finish(state, replace(reading, taps=()), proposal, counts, self.idle_rounds)

    def _store(self, made: Carry) -> None:
        copy_all(_tensors(self.carry), _tensors(made))
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

    def leave(self) -> Round:
        """The last round, without the columns that only fill the buffers, in memory of its own."""
        last = super().leave()
        state = extend(last.state, -self.left).map(torch.clone)
        spent = {
            n: getattr(last.counts, n).clone() for n in ("rounds", "sequence_forwards", "token_positions", "explored")
        }
        return replace(last, state=state, counts=replace(last.counts, **spent))

    def close(self) -> None:
        """The buffers are free for another decode."""
        self.denoiser.engine.in_use.release()


def _own(carry: Carry) -> Carry:
    """The same values in memory of their own."""

    def copy(value: Tensor) -> Tensor:
        return value.contiguous().clone()

    copies: dict[str, Any] = {name: copy(getattr(carry.proposal, name)) for name in KEPT}
    proposal = replace(carry.proposal, **copies)
    return Carry(carry.canvases.map(copy), proposal, copy(carry.counts), copy(carry.alarm))


def _tensors(carry: Carry) -> list[Tensor]:
    """What a graph carries; the confidences of a proposal are written by its commit and read no more."""
    canvases, proposal = carry.canvases, carry.proposal
    state: list[Any] = [getattr(canvases, name) for name in TENSORS if name != "memory"]
    plan = [getattr(proposal, name) for name in KEPT]
    return [*state, *plan, carry.counts, carry.alarm]
