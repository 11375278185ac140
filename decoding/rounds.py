"""How a round runs: the forward over the live canvases, then what the policy makes of it; plainly, or on an engine's buffers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.functional import pad

from decoding.policy import Policy
from decoding.reading import Reading, Sampling, read, reading_of_figures
from decoding.state import DecodeState, Proposal, commit, crop, extend
from models.denoiser import Denoiser, Prediction
from models.engine.graphs import compiled
from models.engine.session import Session, Shape, copy_all
from models.engine.stream import version_of

OnStep = Callable[[DecodeState, Reading], None]
COLUMNS = 64  # the engine's canvases have a multiple of this many positions


@dataclass(frozen=True)
class Carry:
    """What one round hands to the next.

    Attributes:
        canvases: K of each row, after the last commit.
        proposal: that made them.
        counts: rounds, sequence forwards, token positions and explored rounds of each row so far.
    """

    canvases: DecodeState
    proposal: Proposal
    counts: Int[Tensor, "4 B"]

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
    first = torch.arange(canvases, device=state.tokens.device) == 0
    wide = {n: getattr(one, n).expand(-1, canvases, *getattr(one, n).shape[2:]) for n in ("tokens", "reason")}
    proposal = replace(
        one, **wide, live=one.live & first, log_confidence=one.log_confidence.expand(-1, canvases).contiguous()
    )
    counts = torch.zeros(4, len(state.tokens), dtype=torch.long, device=state.tokens.device)
    return Carry(state.repeat(canvases), proposal, counts)


def turn(
    policy: Policy, carry: Carry, sight: Sight, on_step: OnStep | None = None, write: Callable[..., DecodeState] = commit
) -> Carry:
    """Choose among the canvases read, propose, and commit."""
    choice = policy.choose(carry.canvases, carry.proposal, sight.reading)
    state, reading = carry.canvases.at(choice), policy.combine(sight.reading, choice)
    state = state.count(reading)
    if on_step is not None:
        on_step(state, reading)
    proposal = policy.propose(state, reading)
    canvases = write(state, reading, proposal)
    used = sight.used
    spent = torch.stack([(used > 0).long(), used, sight.positions, (used > 1).long()])
    return Carry(canvases, replace(proposal, confidence=None), carry.counts + spent)


def settled(policy: Policy, carry: Carry) -> DecodeState:
    """The state of each row once nothing is left to run."""
    shape, device = tuple(carry.canvases.tokens.shape), carry.canvases.tokens.device
    return carry.canvases.at(policy.choose(carry.canvases, carry.proposal, Reading.empty(shape, device)))


class Rounds(ABC):
    """What the decode loop drives."""

    @abstractmethod
    def enter(self, state: DecodeState) -> Carry:
        """Begin with a batch."""

    @abstractmethod
    def look(self, carry: Carry) -> Sight | None:
        """The next forward, or None where no canvas is left to run."""

    @abstractmethod
    def turn(self, carry: Carry, sight: Sight) -> Carry:
        """What the policy makes of it."""

    @abstractmethod
    def leave(self, carry: Carry) -> DecodeState:
        """The final state of the batch."""


@final
class PlainRounds(Rounds):
    """Only the live canvases run; the host waits to learn which."""

    def __init__(
        self,
        denoiser: Denoiser,
        policy: Policy,
        *,
        attention_mask: Bool[Tensor, "B L"] | None,
        sampling: Sampling,
        generator: torch.Generator | None,
        on_step: OnStep | None,
    ) -> None:
        self.denoiser, self.policy, self.attention_mask = denoiser, policy, attention_mask
        self.sampling, self.generator, self.on_step = sampling, generator, on_step

    def enter(self, state: DecodeState) -> Carry:
        """One canvas for each row; the first proposal makes as many as it wants."""
        return first_carry(state, 1)

    def look(self, carry: Carry) -> Sight | None:
        """Pack the live canvases, run them, and spread what they say."""
        canvases, index = carry.canvases, carry.live.nonzero()  # the one small tensor the host waits for
        if not len(index):
            return None
        row, branch = index.unbind(-1)
        mask = self.attention_mask
        prediction = self.denoiser(
            canvases.tokens[row, branch],
            attention_mask=None if mask is None else mask[row],
            rows=canvases.feasible[row, branch],
            taps=self.policy.taps,
            owner=row,
            refresh=canvases.spent[row, branch] == 0,
        )
        shape = (canvases.tokens.shape[0], canvases.tokens.shape[1])
        reading = read(prediction, self.sampling, self.generator).scatter(index, shape)
        used = torch.bincount(row, minlength=shape[0])
        return Sight(reading, used, torch.zeros_like(used).index_add(0, row, prediction.positions))

    def turn(self, carry: Carry, sight: Sight) -> Carry:
        """Eagerly."""
        return turn(self.policy, carry, sight, self.on_step)

    def leave(self, carry: Carry) -> DecodeState:
        """As chosen by the policy."""
        return settled(self.policy, carry)


@final
class EngineRounds(Rounds):
    """Every canvas has its place in the engine's buffers; the host reads four numbers a round.

    Forwards are graphs. What the policy makes of them is one too, unless something is drawn, or a hook looks on, or the policy
    waits for the host.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        policy: Policy,
        *,
        attention_mask: Bool[Tensor, "B L"] | None,
        sampling: Sampling,
        generator: torch.Generator | None,
        on_step: OnStep | None,
    ) -> None:
        self.denoiser, self.policy, self.attention_mask = denoiser, policy, attention_mask
        self.sampling, self.generator, self.on_step = sampling, generator, on_step
        self.draws = sampling.temperature > 0 or sampling.noise or sampling.draws > 0 or len(sampling.unconfident) > 0
        self.captures = not self.draws and on_step is None
        self.left, self.width = 0, 0
        self.session: Session
        self.carry: Carry

    def enter(self, state: DecodeState) -> Carry:
        """Put a batch into the buffers of its shape."""
        batch, length = state.tokens.shape
        self.left = -length % COLUMNS if self.captures else 0
        mask = torch.ones_like(state.tokens, dtype=torch.bool) if self.attention_mask is None else self.attention_mask
        mask = pad(mask.bool(), (self.left, 0))
        canvases = canvases_of(self.policy, state)
        shape = Shape(
            prompts=batch,
            canvases=canvases,
            length=length + self.left,
            mode=getattr(getattr(self.denoiser, "cache", None), "mode", "none"),
            taps=tuple(self.policy.taps),
            padded=not bool(mask.all()),
            holes=bool((mask[:, :-1] & ~mask[:, 1:]).any()),
            forbidden=self.sampling.forbidden,
            logits=self.draws,
        )
        self.session = self.denoiser.engine.session(shape)
        self.session.begin(mask)
        head = getattr(self.policy, "head", None)
        self.version = () if head is None else version_of(head)
        first = first_carry(extend(state, self.left), canvases)
        if self.session.carry is None:
            self.session.carry = _own(first)
        self.carry = self.session.carry if self.captures else first
        none = torch.zeros(batch, dtype=torch.long, device=state.tokens.device)
        self.nothing = Sight(Reading.empty((batch, 1, 1), state.tokens.device), none, none)  # a graph reads the buffers itself
        self._store(first)
        return self.carry

    def _prepare(self, carry: Carry) -> None:
        canvases = carry.canvases
        self.session.prepare(canvases.tokens, canvases.feasible, carry.live, canvases.spent == 0)

    def look(self, carry: Carry) -> Sight | None:
        """Replay the forwards that the plan asks for."""
        flags: list[int] = self.session.plan.flags.tolist()  # the one small tensor the host waits for
        if not flags[0] + flags[1]:
            return None
        self.width = self.session.forward(flags)
        return self.nothing if self.captures else self._sight()

    def _sight(self) -> Sight:
        """What the forwards left in the buffers."""
        session, plan = self.session, self.session.plan
        live, shape = plan.part | plan.whole, tuple(self.session.rows.shape)
        taps = tuple(replace(session.taps[tap], width=self.width) for tap in self.policy.taps)
        if self.draws:
            reading = self._drawn(live, shape)
        else:
            floats, ints = (torch.unflatten(found, 0, shape[:2]) for found in (session.floats, session.ints))
            reading = compiled(reading_of_figures, live.device)(session.rows, floats, ints)
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
        return read(prediction, self.sampling, self.generator).scatter(index, (shape[0], shape[1]))

    def turn(self, carry: Carry, sight: Sight) -> Carry:
        """By a graph where the policy is a tensor program on what the buffers hold."""
        if not self.captures:
            self.carry = turn(self.policy, carry, sight, self.on_step)
            self._prepare(self.carry)
            return self.carry
        key = (self.session.shape, "turn", self.policy, self.width if self.policy.taps else 0, self._clock(), self.version)
        self.denoiser.engine.graphs.run(key, self._turn, self._store)
        return self.carry

    def _turn(self) -> Carry:
        return turn(self.policy, self.carry, self._sight(), write=compiled(commit, self.denoiser.device))

    def _clock(self) -> tuple[Any, ...]:
        """What a captured commit takes from the layout."""
        layout = self.carry.canvases.layout
        return (layout.num_blocks, layout.mask_id, layout.eos_id, layout.step_budget)

    def _store(self, made: Carry) -> None:
        if made is not self.carry:
            copy_all(_tensors(self.carry), _tensors(made))
        self._prepare(self.carry)

    def leave(self, carry: Carry) -> DecodeState:
        """As chosen by the policy, without the columns that only fill the buffers."""
        return crop(settled(self.policy, carry), self.left)


def rounds_for(denoiser: Denoiser, policy: Policy, **settings: Any) -> Rounds:
    """By the denoiser's engine, where it has one that serves the policy; else plainly."""
    engine = denoiser.engine
    if engine is None:
        return PlainRounds(denoiser, policy, **settings)
    if settings["on_step"] is not None and policy.taps:  # a hook may read the taps
        engine.refused += 1
        return PlainRounds(denoiser, policy, **settings)
    return EngineRounds(denoiser, policy, **settings)


def canvases_of(policy: Policy, state: DecodeState) -> int:
    """Canvases of a round at most."""
    if policy.taps:
        return 2 if getattr(policy, "gate", 0) else 1
    nothing = Reading.empty(tuple(state.tokens.shape), state.tokens.device, draws=policy.draws)
    return policy.propose(state, nothing).live.shape[1]


def _own(carry: Carry) -> Carry:
    """The same values in memory of their own."""
    copy = lambda v: v.contiguous().clone()  # noqa: E731
    layout = carry.canvases.layout
    canvases = replace(carry.canvases.map(copy), layout=replace(layout, block=copy(layout.block)))
    proposal = replace(
        carry.proposal, **{f.name: copy(getattr(carry.proposal, f.name)) for f in fields(Proposal)[:4]}
    )
    return Carry(canvases, proposal, copy(carry.counts))


def _tensors(carry: Carry) -> list[Tensor]:
    parts = (carry.canvases.layout, carry.canvases, carry.proposal)
    found = [getattr(part, f.name) for part in parts for f in fields(part)]
    return [*(value for value in found if isinstance(value, Tensor)), carry.counts]
