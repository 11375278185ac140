"""PC-Sampler: confidence weighed by how unusual the token is, and by how far from the start it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from decoding.policies.rules import require
from decoding.policy import Policy, rank
from decoding.reading import Reading
from decoding.state import DecodeState, Proposal, Reason

RARE = 1e-9  # keeps the logarithm of a frequency finite


@final
@dataclass(frozen=True)
class PCSampler(Policy):
    """Commit the positions with the best calibrated and position-biased confidence: PC-Sampler, arXiv 2508.13021.

    score_i = exp(-bias * o_i) * min(-c_i log f(token_i), clip), with o_i the place of i in its block, 0 the first, and f the
    frequency of a token in a background corpus. Without a background the score is exp(-bias * o_i) * c_i: the position bias alone.

    Args:
        bias: lambda, at least 0; .25 in the published runs, 0 for Sudoku.
        clip: alpha, above 0; 10 in the published runs.
        background: frequency of each token id in [0, 1]; none by default, since it belongs to a tokenizer.
        per_round: commits of a round, at least 1; 1 in the published runs.
    """

    checkable: ClassVar[bool] = True
    bias: float = 0.25
    clip: float = 10.0
    background: tuple[float, ...] = ()
    per_round: int = 1

    def __post_init__(self) -> None:
        require(self.bias >= 0, "bias", "be at least 0", self.bias)
        require(self.clip > 0, "clip", "be above 0", self.clip)
        held = isinstance(self.background, tuple) and all(
            isinstance(f, int | float) and 0 <= f <= 1 for f in self.background
        )
        require(held, "background", "be a tuple of numbers in [0, 1]", self.background)
        require(self.per_round >= 1, "per_round", "be at least 1", self.per_round)

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """Commit the first positions by score."""
        first = reading.rows & (rank(self.score(state, reading), reading.rows) < self.per_round)
        return Proposal.single(state, reading, first * int(Reason.EXPLOIT))

    def score(self, state: DecodeState, reading: Reading) -> Float[Tensor, "B L"]:
        """What comes first has most of."""
        canvas = state.block >= 0
        place = (canvas.long().cumsum(-1) - 1).clamp(min=0) % (state.block == 0).sum(-1, keepdim=True).clamp(min=1)
        return (-self.bias * place).exp() * self.calibrated(reading)

    def calibrated(self, reading: Reading) -> Float[Tensor, "B L"]:
        """min(-c log f, clip); c itself without a background."""
        if not self.background:
            return reading.confidence
        frequency = torch.tensor(
            self.background, device=reading.token.device
        )  # waits for the host, so that it is not captured
        surprise = -(frequency[reading.token.clamp(min=0)] + RARE).log()
        return (reading.confidence * surprise).clamp(max=self.clip)
