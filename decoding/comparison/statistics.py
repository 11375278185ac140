"""What a decode cost and how it got its tokens: rounds, forwards, bits per round, and the bound on an exploit round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decoding.commit import is_one_of
from decoding.rounds.round import Counts
from decoding.state import DecodeState, Reason
from models.complaints import shown


@dataclass(frozen=True)
class Statistics:
    """Figures of each row of a finished decode.

    Attributes:
        rounds: sequential forwards.
        sequence_forwards: canvases through the model.
        token_positions: positions computed, padding not counted.
        bits: self-information of what was predicted: the sum of -log2 c over the tokens when they were committed. A
            path sum; it is -log2 p(x) only as far as the tokens of a round are independent.
        bits_per_round: bits / rounds, 0 for a row without rounds.
        forced_share: share of the predicted tokens that nothing but the need of progress committed.
        explored_share: rho, share of the rounds that ran more than one canvas; with k canvases in each of them the
            rounds are 1 / (1 + rho (k - 1)) of the sequence forwards.
        new_tokens: length of the answer up to and including the first EOS.
    """

    rounds: Int[Tensor, " B"]
    sequence_forwards: Int[Tensor, " B"]
    token_positions: Int[Tensor, " B"]
    bits: Float[Tensor, " B"]
    bits_per_round: Float[Tensor, " B"]
    forced_share: Float[Tensor, " B"]
    explored_share: Float[Tensor, " B"]
    new_tokens: Int[Tensor, " B"]


def statistics(state: DecodeState, counts: Counts, *, eos_id: int | Sequence[int] | None = None) -> Statistics:
    """Statistics of every row of a finished decode.

    Args:
        state: final state.
        counts: what the decode cost.
        eos_id: the id or ids that end an answer; None takes those of the early stop.
    """
    rounds = counts.rounds.clamp(min=1)
    predicted = is_predicted(state)
    forced = (state.reason == int(Reason.FORCED)).sum(-1)
    bits = (information(state) * predicted).sum(-1) / math.log(2)
    return Statistics(
        rounds=counts.rounds,
        sequence_forwards=counts.sequence_forwards,
        token_positions=counts.token_positions,
        bits=bits,
        bits_per_round=bits / rounds,
        forced_share=forced / predicted.sum(-1).clamp(min=1),
        explored_share=counts.explored / rounds,
        new_tokens=new_tokens(state, state.layout.end_ids if eos_id is None else eos_id),
    )


def is_predicted(state: DecodeState) -> Bool[Tensor, "B L"]:
    """Positions that a forward predicted: neither prompt, nor masked, nor filled after an early stop."""
    return (state.reason > int(Reason.NONE)) & (state.reason != int(Reason.END)) & ~state.masked


def information(state: DecodeState) -> Float[Tensor, "B L"]:
    """-log c in nats of every token when it was committed."""
    return -state.committed_confidence.clamp(min=torch.finfo(torch.float32).tiny).log()


def new_tokens(state: DecodeState, end_ids: int | Sequence[int]) -> Int[Tensor, " B"]:
    """Canvas tokens up to and including the first that ends an answer."""
    canvas = state.block >= 0
    ids = (end_ids,) if isinstance(end_ids, int) else end_ids
    ends = (is_one_of(state.tokens, ids) & canvas).long()
    ended_before = ends.cumsum(-1) - ends
    return (canvas & (ended_before == 0)).sum(-1)


def exploit_bound(size: Float[Tensor, "*shape"], factor: float) -> Float[Tensor, "*shape"]:
    """Nats that an exploit round of `size` positions reveals at most: m log((1 + m) / (1 + m - f)), which is <= f <= 1."""
    return torch.xlogy(size, (1 + size) / (1 + size - factor))


@dataclass(frozen=True)
class RoundsBound:
    """Rounds below which no factor-rule decode of a sequence can be done.

    Attributes:
        joint: -log p(x) over what one round reveals jointly at most.
        parts: (-log p(x) - epsilon) over what the parts of one round reveal at most.
    """

    joint: float
    parts: float

    @property
    def rounds(self) -> int:
        """The smallest whole number of rounds that both allow."""
        return math.ceil(max(self.joint, self.parts))


def bits_to_rounds(nll: float, *, n: int, factor: float, epsilon: float = 0.0) -> RoundsBound:
    """The bits-to-rounds bound, theorem 3.2 of arXiv 2511.21103.

    R >= max(-log p(x) / log((n + 1) / ((1 - f) n + 1)), (-log p(x) - epsilon) / f).

    Args:
        nll: -log p(x) in nats.
        n: positions of the sequence.
        factor: f, in (0, 1].
        epsilon: what the rounds reveal jointly beyond their parts, -log p(x) minus the path sum of -log c.

    Raises:
        ValueError: if the factor is out of range.
    """
    _require_factor(factor)
    return RoundsBound(joint=nll / math.log((n + 1) / ((1 - factor) * n + 1)), parts=(nll - epsilon) / factor)


def _require_factor(factor: float) -> None:
    if not 0 < factor <= 1:
        raise ValueError(f"factor must lie in (0, 1], got {shown(factor)}")


def per_round_invariant(state: DecodeState, factor: float, *, tolerance: float = 1e-4) -> Bool[Tensor, " B"]:
    """Whether no exploit round of the factor rule committed more information than its bound allows.

    sum_{i in A_r} -log c_i <= m log((1 + m) / (1 + m - f)) <= f for m = |A_r| >= 1 and f <= 1; A_r are the positions
    that the rule accepted in round r. From the proof of theorem 3.2 of arXiv 2511.21103.

    Args:
        state: final state.
        factor: f, in (0, 1].
        tolerance: slack for rounding, in nats.

    Raises:
        ValueError: if the factor is out of range.
    """
    _require_factor(factor)
    accepted = state.reason == int(Reason.EXPLOIT)
    round_index = state.committed_round.clamp(min=0)
    blank = torch.zeros(len(round_index), int(round_index.max()) + 1, device=round_index.device)
    revealed = blank.scatter_add(-1, round_index, information(state) * accepted)
    m = blank.scatter_add(-1, round_index, accepted.float())
    return (revealed <= exploit_bound(m, factor) + tolerance).all(-1)
