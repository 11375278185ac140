"""Info-Gain: of several positions the one that leaves least uncertainty behind, by one look ahead."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decoding.policies.imh import first_equal
from decoding.policies.rules import require, require_one_of
from decoding.policy import Needs, Policy
from decoding.reading import Reading
from decoding.state import DecodeState, Proposal, Reason

Variant = Literal["info_gain", "lookum"]
WHOLE_CANVAS = 1 << 20  # blocks open from the start, for what is left masked counts in all of them
TINY = 1e-10


@final
@dataclass(frozen=True)
class InfoGain(Policy):
    """Commit that one of some positions which leaves least entropy behind: Info-Gain, arXiv 2602.18176.

    As in the authors' stand-alone sampler.
    Once every mask of the earliest block has c >= threshold they are all committed. Until then a round commits one position of that
    block: the most confident one, and candidate_number - 1 more with the largest c_i / position_temperature + Gumbel noise, are
    each written into a canvas, and the canvas with the greatest J = -H_i - mean_j H_j is kept, H_i the entropy of the position
    committed (left out by `lookum`) and H_j those of the masks left on the whole canvas.

    Args:
        threshold: in (0, 1], the dial: 1 and more careful is one token a round.
        candidate_number: canvases in one forward at most, at least 1.
        position_temperature: above 0.
        variant: info_gain, or lookum without the cost of the commit itself.
    """

    threshold: float = 0.8
    candidate_number: int = 8
    position_temperature: float = 0.2
    variant: Variant = "info_gain"

    def __post_init__(self) -> None:
        require(0 < self.threshold <= 1, "threshold", "lie in (0, 1]", self.threshold)
        require(self.candidate_number >= 1, "candidate_number", "be at least 1", self.candidate_number)
        require(self.position_temperature > 0, "position_temperature", "be above 0", self.position_temperature)
        require_one_of(Variant, "variant", self.variant)

    @property
    def initial_blocks(self) -> int:
        """All of them; it fills them one after the other by itself."""
        return WHOLE_CANVAS

    @property
    def needs(self) -> Needs:
        """A canvas for each candidate, and its noise."""
        return Needs(canvases=self.candidate_number, noise=True, draws=self.candidate_number)

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """A canvas for each different candidate; one with the whole block where that is sure."""
        block = state.frontier & reading.rows
        sure = ~(block & (reading.confidence < self.threshold)).any(-1)
        place = self.candidates(replace(reading, rows=block))
        number = torch.arange(place.shape[1], device=place.device)
        here = (torch.arange(block.shape[-1], device=place.device) == place.unsqueeze(-1)) & block.unsqueeze(1)
        chosen = torch.where(sure[:, None, None], block.unsqueeze(1), here)
        tokens = torch.where(chosen, reading.token.unsqueeze(1), state.tokens.unsqueeze(1))
        return Proposal(
            tokens=tokens,
            reason=torch.where(chosen, int(Reason.EXPLOIT), 0),
            live=(first_equal(tokens) == number) & state.unfinished.unsqueeze(-1),
            log_confidence=-reading.entropy.gather(-1, place) * (self.variant == "info_gain"),
        )

    def candidates(self, reading: Reading) -> Int[Tensor, "B K"]:
        """The most confident position, then the noisy ones."""
        best = reading.log_odds.masked_fill(~reading.rows, -torch.inf).argmax(-1, keepdim=True)
        if reading.draws is None:
            return best.expand(-1, self.candidate_number)
        chances = reading.draws.chances[..., 1:].transpose(-1, -2)  # [B, K - 1, L]
        gumbel = -((-(chances + TINY).log() + TINY).log())
        score = reading.confidence.unsqueeze(1) / self.position_temperature + gumbel
        return torch.cat([best, score.masked_fill(~reading.rows.unsqueeze(1), -torch.inf).argmax(-1)], 1)

    def score(self, proposal: Proposal, reading: Reading) -> Float[Tensor, "B K"]:
        """J of each canvas; nothing is uncertain where nothing is masked."""
        left = reading.rows.sum(-1).clamp(min=1)
        return proposal.log_confidence - (reading.entropy * reading.rows).sum(-1) / left

    def choose(self, canvases: DecodeState, proposal: Proposal, reading: Reading) -> Int[Tensor, " B"]:
        """The canvas with the greatest J, the first of equals."""
        return self.score(proposal, reading).masked_fill(~proposal.live, -torch.inf).argmax(-1)
