"""KLASS: a position is ready once it is confident and its distribution has come to rest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from decoding.policies.rules import at_least_one, require
from decoding.policy import Needs, Policy
from decoding.reading import Reading
from decoding.state import DecodeState, Proposal


@final
@dataclass(frozen=True)
class KLASS(Policy):
    """Commit what is confident and stable, the most confident position where nothing is: KLASS, arXiv 2511.05664.

    A = {i : c_i > threshold and KL(p_i^t || p_i^(t-1)) < kl_threshold in the last `history_length` rounds}. Divergences count from
    the first round of the block on, the one against the last reading before it included; a position without an earlier
    distribution is not stable.

    Args:
        threshold: tau, in [0, 1); .6 in the published runs of LLaDA on GSM8K and MATH, .7 on MBPP, .9 on HumanEval.
        kl_threshold: kappa in nats, above 0; .015 there on GSM8K, .01 elsewhere.
        history_length: n, rounds of rest, at least 1.
    """

    threshold: float = 0.9
    kl_threshold: float = 0.01
    history_length: int = 2

    def __post_init__(self) -> None:
        require(0 <= self.threshold < 1, "threshold", "lie in [0, 1)", self.threshold)
        require(self.kl_threshold > 0, "kl_threshold", "be above 0", self.kl_threshold)
        require(self.history_length >= 1, "history_length", "be at least 1", self.history_length)

    @property
    def needs(self) -> Needs:
        """The distributions of the round before, and the divergences of the rounds before that."""
        return Needs(earlier=True, memory=self.history_length - 1)

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """Commit what is confident and at rest, at least one position."""
        last = drifts(state, reading)
        long_enough = (state.spent >= self.history_length - 1).unsqueeze(-1)
        stable = (last < self.kl_threshold).all(1) & long_enough
        ready = reading.rows & stable & (reading.confidence > self.threshold)
        proposal = Proposal.single(state, reading, at_least_one(ready, reading.log_odds, reading))
        return replace(proposal, memory=last[:, : self.history_length - 1])


def drifts(state: DecodeState, reading: Reading) -> Float[Tensor, "B n L"]:
    """Divergences of this round and of those remembered, the newest first."""
    now = torch.full_like(reading.confidence, torch.inf) if reading.drift is None else reading.drift
    return torch.cat([now.unsqueeze(1), state.memory], 1)
