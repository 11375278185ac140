"""SlowFast sampling: slow rounds find how far the text is settled, fast ones fill that stretch without looking beyond it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decoding.policies.rules import at_least_one, require
from decoding.policy import Needs, Policy
from decoding.reading import Reading
from decoding.state import DecodeState, Proposal

STEADY = 1.0  # two estimates of the end agree where their standard deviation is less


class Cycle(NamedTuple):
    """Where a row stands in its cycle; ends are counted from the start of the block.

    Attributes:
        start, end: the stretch that the fast rounds fill, end excluded.
        estimate: of the end, in the round before.
        step: slow rounds so far; `slow_rounds` in the first fast round, one more in the others.
        settled: 1 once the end is found, else 0.
    """

    start: Float[Tensor, "..."]
    end: Float[Tensor, "..."]
    estimate: Float[Tensor, "..."]
    step: Float[Tensor, "..."]
    settled: Float[Tensor, "..."]

    def memory(self, length: int) -> Float[Tensor, "... 5 L"]:
        """To be remembered, the same at every position."""
        return torch.stack(self, -1).unsqueeze(-1).expand(*self.start.shape, len(self), length)


def remembered(state: DecodeState) -> Cycle:
    """The cycle of every row; a block begins with a new one."""
    start, end, estimate, step, settled = state.memory[..., 0].unbind(-1)
    old = (state.spent > 0).float()
    return Cycle(start * old, end, estimate, step * old, settled * old)


@final
@dataclass(frozen=True)
class SlowFast(Policy):
    """Cycles of slow rounds that look for a settled stretch and fast rounds that fill it: SlowFast, arXiv 2506.10848.

    Every round commits {i : c_i >= threshold} of its scope, at least the best one. The `slow_rounds` first rounds of a cycle have
    the rest of the block for scope, and estimate the end of the stretch as the farthest mask with c >= cycle_threshold; two
    estimates in a row that differ by at most 1 settle it, else the mean of the last two does. The fast rounds have the stretch for
    scope until it is full; from the second on, their forwards see nothing behind its end. The next cycle starts there.

    Args:
        threshold: of commits, in (0, 1].
        cycle_threshold: of the estimate, in (0, 1].
        slow_rounds: k, at least 1.
    """

    threshold: float = 0.9
    cycle_threshold: float = 0.3
    slow_rounds: int = 6

    def __post_init__(self) -> None:
        require(0 < self.threshold <= 1, "threshold", "lie in (0, 1]", self.threshold)
        require(0 < self.cycle_threshold <= 1, "cycle_threshold", "lie in (0, 1]", self.cycle_threshold)
        require(self.slow_rounds >= 1, "slow_rounds", "be at least 1", self.slow_rounds)

    @property
    def needs(self) -> Needs:
        """A memory of the cycle, and forwards that see less than the whole."""
        return Needs(memory=5, hides=True)

    def visible(self, state: DecodeState) -> Bool[Tensor, "... L"]:
        """All; from the second fast round on nothing behind the stretch."""
        cycle = remembered(state)
        fast = (cycle.step > self.slow_rounds).unsqueeze(-1)
        return ~(fast & (offset(state) >= cycle.end.unsqueeze(-1)))

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """Commit in the scope of the round, and move the cycle on."""
        cycle, place = remembered(state), offset(state)
        slow = cycle.step < self.slow_rounds
        now = torch.minimum(self.farthest(cycle, place, reading), block_length(state))
        cycle = self.estimated(cycle, now, slow)
        within = place < torch.where(slow, block_length(state), cycle.end).unsqueeze(-1)
        scope = reading.rows & (place >= cycle.start.unsqueeze(-1)) & within
        accepted = scope & (reading.confidence >= self.threshold)
        reason = at_least_one(accepted, reading.log_odds, replace(reading, rows=scope))
        left = state.masked & (reason == 0) & (place >= cycle.start.unsqueeze(-1)) & (place < cycle.end.unsqueeze(-1))
        moved = self.moved(cycle, left.any(-1))
        return replace(Proposal.single(state, reading, reason), memory=moved.memory(state.masked.shape[-1]))

    def farthest(self, cycle: Cycle, place: Int[Tensor, "B L"], reading: Reading) -> Float[Tensor, " B"]:
        """One behind the farthest mask with c >= cycle_threshold; one position where there is none."""
        sure = reading.rows & (reading.confidence >= self.cycle_threshold)
        return torch.where(sure, place + 1.0, cycle.start.unsqueeze(-1) + 1.0).amax(-1)

    def estimated(self, cycle: Cycle, now: Float[Tensor, " B"], slow: Bool[Tensor, " B"]) -> Cycle:
        """The cycle with one more estimate of its end; as it was once the end is settled."""
        alone = cycle.step == 0
        agree = ~alone & ((now - cycle.estimate).abs() / 2 < STEADY)
        mean = torch.where(alone, now, ((now + cycle.estimate) / 2).floor())
        asked = slow & (cycle.settled == 0)
        end = torch.where(asked, torch.where(agree, now, mean), cycle.end)
        settled = torch.where(asked & agree, 1.0, cycle.settled)
        return cycle._replace(end=end, estimate=torch.where(asked, now, cycle.estimate), settled=settled)

    def moved(self, cycle: Cycle, left: Bool[Tensor, " B"]) -> Cycle:
        """One step on, and on to the next cycle where the fast rounds have nothing left to fill."""
        step = (cycle.step + 1).clamp(max=self.slow_rounds + 1)
        over = (step >= self.slow_rounds) & ~left
        start = torch.where(over, cycle.end, cycle.start)
        return cycle._replace(start=start, step=step.masked_fill(over, 0), settled=cycle.settled.masked_fill(over, 0))


def block_length(state: DecodeState) -> Int[Tensor, "..."]:
    """Positions of a block."""
    return (state.block == 0).sum(-1)


def offset(state: DecodeState) -> Int[Tensor, "... L"]:
    """Place of each position from the start of the newest block, negative before it."""
    place = (state.block >= 0).long().cumsum(-1) - 1
    place = torch.where(state.block >= 0, place, -place.shape[-1])
    return place - ((state.opened - 1) * block_length(state)).unsqueeze(-1)
