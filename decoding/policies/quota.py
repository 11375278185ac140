"""Rules that fix how many positions a round commits and leave open which: one, LLaDA's quota per block, or Dream's schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decoding.policies.rules import require, require_one_of
from decoding.policy import Needs, Policy, best, rank
from decoding.reading import Reading
from decoding.state import DecodeState, Proposal, Reason

Order = Literal["confidence", "random", "margin", "entropy", "left_to_right", "right_to_left"]
ORDERS: Mapping[str, Callable[[Reading], Float[Tensor, "B L"]]] = MappingProxyType(
    {
        "confidence": lambda reading: reading.log_odds,
        "random": lambda reading: reading.noise,
        "margin": lambda reading: reading.margin_odds,
        "entropy": lambda reading: -reading.entropy,
        "left_to_right": lambda reading: -torch.ones_like(reading.confidence).cumsum(-1),
        "right_to_left": lambda reading: torch.ones_like(reading.confidence).cumsum(-1),
    }
)


@dataclass(frozen=True)
class OrderedPolicy(Policy):
    """Positions in a given order, the greatest score first.

    Args:
        order: confidence (LLaDA's low_confidence remasking), random, margin p1 - p2, entropy (lowest first),
            left_to_right or right_to_left.
    """

    order: Order = "confidence"

    def __post_init__(self) -> None:
        require_one_of(Order, "order", self.order)

    @property
    def needs(self) -> Needs:
        """Draws for the random order."""
        return Needs(noise=self.order == "random")

    def score(self, reading: Reading) -> Float[Tensor, "B L"]:
        """What comes first has most of."""
        return ORDERS[self.order](reading)


@final
@dataclass(frozen=True)
class Sequential(OrderedPolicy):
    """Commit one position a round: the first of the opened blocks in the given order.

    Args:
        order: confidence, random, margin p1 - p2, entropy (lowest first), left_to_right or right_to_left.
    """

    checkable: ClassVar[bool] = True

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """Commit the first position of each row."""
        return Proposal.single(state, reading, best(self.score(reading), reading.rows) * int(Reason.EXPLOIT))


@final
@dataclass(frozen=True)
class Quota(OrderedPolicy):
    """Commit a fixed number of positions a round, so that `steps` rounds fill the canvas: LLaDA.

    The sampler of arXiv 2502.09992. A block of b masks is given s = steps / number of blocks rounds; round r of the
    block (0-based) commits b // s + [r < b mod s] positions. Rounds that would commit nothing (s > b) are not run.

    Args:
        order: confidence (`low_confidence` remasking), random, margin p1 - p2, entropy (lowest first), left_to_right or
            right_to_left.
        steps: rounds in all, a positive multiple of the number of blocks.
    """

    checkable: ClassVar[bool] = True
    steps: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.steps >= 1, "steps", "be at least 1", self.steps)

    def check_blocks(self, num_blocks: int) -> None:
        """The blocks must share the steps equally."""
        rule = f"be a multiple of the number of blocks ({num_blocks})"
        require(self.steps % num_blocks == 0, "steps", rule, self.steps)

    def quota(self, state: DecodeState) -> Int[Tensor, " B"]:
        """How many positions each row commits in this round of its block."""
        steps = self.steps // state.num_blocks
        block_length = (state.block == 0).sum(-1)
        return block_length // steps + (state.spent < block_length % steps).long()

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """Commit the first positions of each row, as many as its quota."""
        first = reading.rows & (rank(self.score(reading), reading.rows) < self.quota(state).unsqueeze(-1))
        return Proposal.single(state, reading, first * int(Reason.EXPLOIT))


@final
@dataclass(frozen=True)
class DreamQuota(OrderedPolicy):
    """Commit floor(n (1 - s / t)) of the n masks left each round, and all of them in the last: Dream.

    t and s are neighbours of the grid linspace(1, eps, steps + 1); `diffusion_generate` of Dream (arXiv 2508.15487), whose
    n is the mean over the batch and here each row's own. Open the whole canvas (one block). As published, a round whose
    floor is 0 commits nothing and still costs its forward: the one rule here that may do so.

    Args:
        order: confidence (`maskgit_plus`), margin (`topk_margin`: p1 - p2), entropy (lowest first), random or left_to_right.
        steps: rounds in all, at least 1.
        eps: end of the time grid, in (0, 1).
    """

    steps: int = 512
    eps: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.steps >= 1, "steps", "be at least 1", self.steps)
        require(0 < self.eps < 1, "eps", "lie in (0, 1)", self.eps)

    @property
    def needs(self) -> Needs:
        """As many rounds as steps, some of which may commit nothing."""
        return replace(super().needs, rounds=self.steps)

    def quota(self, state: DecodeState) -> Int[Tensor, " B"]:
        """How many positions each row commits; float32 as published, so that the floors are the same."""
        time = torch.linspace(1, self.eps, self.steps + 1, device=state.tokens.device)
        step = (state.round - 1).clamp(0, self.steps - 1)
        left = state.masked.sum(-1)
        share = (left * (1 - time[step + 1] / time[step])).long()
        return torch.where(step == self.steps - 1, left, share)

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """Commit the first positions of each row, as many as its quota."""
        first = reading.rows & (rank(self.score(reading), reading.rows) < self.quota(state).unsqueeze(-1))
        return Proposal.single(state, reading, first * int(Reason.EXPLOIT))
