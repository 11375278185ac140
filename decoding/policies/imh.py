"""Independent Metropolis-Hastings (arXiv 2604.00375): one position a round, drawn with its future in view.

The target p(x)^alpha / sum p^alpha has the conditionals

    pi(x_i = v | x_C)  ∝  p_i(v | x_C)^alpha Z(v),    Z(v) = sum_rest p(rest | x_C, v)^alpha
                                                        ≈ prod_{j masked} sum_u p_j(u | x_C, v)^alpha   (mean field)

Proposals v ~ q ∝ p_i^alpha are independent of the chain, so all of them share one forward, and a step from v to v' is accepted
with probability min(1, Z(v') / Z(v)).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decoding.features import features
from decoding.policies.learned import check_head
from decoding.policies.quota import ORDERS
from decoding.policies.rules import require, require_one_of
from decoding.policy import Needs, Policy, best
from decoding.reading import Reading
from decoding.sampling import Draws
from decoding.state import DecodeState, Proposal, Reason
from models.heads.scoring_head import ScoringHead

PositionOrder = Literal["confidence", "random", "left_to_right"]
Future = Callable[[DecodeState, Reading], Tensor]  # canvases [B, K] and their reading -> log Z [B, K]


def mean_field_future(canvases: DecodeState, reading: Reading) -> Float[Tensor, "B K"]:
    """log Z(v) = sum_j log sum_u p_j(u | x_C, v)^alpha over the masks of the opened blocks."""
    if reading.draws is None:  # nothing is left to predict
        return torch.zeros_like(reading.confidence[..., 0])
    return reading.draws.log_power.sum(-1)


@dataclass(frozen=True)
class HeadFuture:
    """A scoring head in the look-ahead's place: sum_j log(1 - r_j), how likely the rest is right after v.

    A heuristic, not an estimate of log Z(v): it judges the most likely continuation alone, and alpha does not enter.

    Args:
        head: its risks are those of the canvases' own candidates.
    """

    head: ScoringHead = field(repr=False)

    def __post_init__(self) -> None:
        check_head(self.head)

    @property
    def taps(self) -> tuple[int, ...]:
        """Base blocks the head reads."""
        return self.head.taps

    def __call__(self, canvases: DecodeState, reading: Reading) -> Float[Tensor, "B K"]:
        """One pass of the head over all canvases; 0 where no canvas was read because nothing is left to predict."""
        if len(reading.taps) < len(self.taps):
            return torch.zeros_like(reading.confidence[..., 0])
        shape, rows = reading.rows.shape[:2], reading.rows.flatten(0, 1)
        exploit = reading.rows & (reading.confidence >= self.head.config.threshold)
        read = features(canvases, reading, exploit).flatten(0, 1)
        taps = tuple(tap.map(lambda v: v.flatten(0, 1)) for tap in reading.taps)
        risk_logit = self.head(read, rows, reading.token.flatten(0, 1), taps).risk_logit
        safe = (torch.nn.functional.logsigmoid(-risk_logit) * rows).sum(-1)
        return torch.unflatten(safe, 0, tuple(shape))


def run_chain(log_weight: Float[Tensor, "B K"], chance: Float[Tensor, "B S"]) -> Int[Tensor, " B"]:
    """Where S steps of an independence chain over K proposals end, started at the first.

    Step s proposes state s mod (K - 1) + 1 and accepts it with probability min(1, w' / w), w = target / proposal law.

    Args:
        log_weight: log w of each proposal.
        chance: uniform draws that decide the steps.
    """
    count = log_weight.shape[1]
    current = torch.zeros_like(log_weight[:, :1], dtype=torch.long)
    for step in range(chance.shape[1] if count > 1 else 0):
        other = torch.full_like(current, step % (count - 1) + 1)
        gain = log_weight.gather(1, other) - log_weight.gather(1, current)
        accept = chance[:, step : step + 1].log() < gain
        current = torch.where(accept, other, current)
    return current.squeeze(1)


@final
@dataclass(frozen=True)
class IndependentMH(Policy):
    """Commit one position a round, its token by an independence chain on p^alpha times its mean-field future.

    Equal proposals share one canvas, so a position of which the model is sure costs one sequence forward.

    Args:
        alpha: exponent of the target, above 0; 2 matches a local temperature of 0.5.
        proposals: K, tokens drawn for the position, whose canvases share one forward; at least 1.
        chain: steps of the chain; None takes each proposal once (K - 1). More steps go through the proposals again.
        order: which position: confidence (the most likely token's), random or left_to_right.
        future: log Z of every canvas; a part to replace, whose `taps`, if it has any, are read.
    """

    alpha: float = 2.0
    proposals: int = 4
    chain: int | None = None
    order: PositionOrder = "confidence"
    future: Future = field(default=mean_field_future, repr=False)

    def __post_init__(self) -> None:
        require(self.alpha > 0, "alpha", "be above 0", self.alpha)
        require(self.proposals >= 1, "proposals", "be at least 1", self.proposals)
        require(self.chain is None or self.chain >= 0, "chain", "be at least 0", self.chain)
        require_one_of(PositionOrder, "order", self.order)

    @property
    def steps(self) -> int:
        """Steps of the chain."""
        return self.proposals - 1 if self.chain is None else self.chain

    @property
    def needs(self) -> Needs:
        """Draws from p^alpha for proposals and steps, a canvas for each proposal, and what the future reads."""
        return Needs(
            canvases=self.proposals,
            taps=tuple(getattr(self.future, "taps", ())),
            noise=True,
            draws=max(self.proposals, self.steps),
            power=self.alpha,
        )

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """One canvas for each different proposal at the position that is next."""
        score = reading.top_odds if self.order == "confidence" else ORDERS[self.order](reading)
        chosen, needs = best(score, reading.rows), self.needs
        draws = reading.draws or Draws.empty(tuple(chosen.shape), needs.draws, chosen.device)
        place = chosen.long().argmax(-1).view(-1, 1, 1).expand(-1, 1, needs.draws)
        drawn, log_probs, chance = (
            value.gather(1, place).squeeze(1) for value in (draws.tokens, draws.log_probs, draws.chances)
        )
        here = chosen.unsqueeze(1)
        tokens = torch.where(here, drawn[:, : self.proposals, None], state.tokens.unsqueeze(1))
        number = torch.arange(tokens.shape[1], device=tokens.device)
        return Proposal(
            tokens=tokens,
            reason=(here * int(Reason.EXPLOIT)).expand_as(tokens),
            live=(first_equal(tokens) == number) & state.unfinished.unsqueeze(-1),
            log_confidence=torch.zeros_like(log_probs[:, : self.proposals]),
            confidence=torch.where(here, log_probs[:, : self.proposals, None].exp(), 0.0),
            chance=chance[:, : self.steps],
        )

    def choose(self, canvases: DecodeState, proposal: Proposal, reading: Reading) -> Int[Tensor, " B"]:
        """The canvas where the chain ends."""
        if proposal.chance is None:  # before the first proposal
            return super().choose(canvases, proposal, reading)
        same = first_equal(proposal.tokens)
        log_future = self.future(canvases, reading).gather(1, same)
        end = run_chain(log_future, proposal.chance)
        return same.gather(1, end.unsqueeze(1)).squeeze(1)


def first_equal(tokens: Int[Tensor, "B K L"]) -> Int[Tensor, "B K"]:
    """For each canvas the first one of its row that holds the same tokens."""
    equal = (tokens.unsqueeze(2) == tokens.unsqueeze(1)).all(-1)
    return equal.long().argmax(-1)
