"""-log p(x) along the order in which a sequence was decoded, and what each round revealed of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decoding.comparison.statistics import information, is_predicted
from decoding.state import DecodeState, Reason
from models.denoiser import Denoiser


def decoded_order(state: DecodeState) -> Int[Tensor, "B L"]:
    """Place of every predicted position in the order of decoding, 0 the first: by round, left to right within a round.

    -1 for the prompt and for what no forward predicted.
    """
    predicted = is_predicted(state)
    length = predicted.shape[-1]
    key = torch.where(predicted, state.committed_round, int(state.committed_round.max()) + 1)
    key = key * length + torch.arange(length, device=key.device)
    return torch.where(predicted, torch.argsort(torch.argsort(key, dim=-1), dim=-1), -1)


@torch.inference_mode()
def token_nats(
    denoiser: Denoiser,
    tokens: Int[Tensor, "B L"],
    order: Int[Tensor, "B L"],
    *,
    attention_mask: Bool[Tensor, "B L"] | None = None,
    batch_size: int = 64,
) -> Float[Tensor, "B L"]:
    """The exact any-order chain: -log p(x_i | every x_j with a smaller place, prompt), one forward per token.

    The sum over a row is -log p(x) along that order. A model whose conditionals are those of one joint distribution gives the
    same sum in every order; a trained one need not.

    Args:
        denoiser: the model; token log-probabilities are those at temperature 1.
        tokens: complete sequences.
        order: order of decoding, 0 the first, -1 for what is given.
        attention_mask: False on padding.
        batch_size: canvases in one forward.

    Returns:
        Nats of every token, 0 where the place is -1.
    """
    nats = torch.zeros(tokens.shape, device=tokens.device)
    row, position = (order >= 0).nonzero().unbind(-1)
    for few in torch.split(torch.arange(len(row), device=row.device), batch_size):
        b, i = row[few], position[few]
        turn = order[b, i].unsqueeze(-1)
        prediction = denoiser(
            tokens[b].masked_fill(order[b] >= turn, denoiser.mask_id),
            attention_mask=None if attention_mask is None else attention_mask[b],
            rows=order[b] == turn,
        )
        nats[b, i] = nll(prediction.logits, tokens[b, i])
    return nats


def nll(logits: Float[Tensor, "M V"], tokens: Int[Tensor, " M"]) -> Float[Tensor, " M"]:
    """-log p(token) in nats, in float32."""
    z = logits.float()
    return z.logsumexp(-1) - z.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


@dataclass(frozen=True)
class Rounds:
    """What each round of a finished decode revealed; rounds without a commit are empty.

    joint - path is epsilon_r of arXiv 2511.21103, what the parts do not tell of the round; it may be negative.

    Attributes:
        size: m, positions committed.
        path: sum of -log c_i, the information of the parts.
        joint: -log p(x_A | what came before), by the chain.
        exploit: rounds in which the rule accepted something; the others with a commit are forced.
    """

    size: Float[Tensor, "B R"]
    path: Float[Tensor, "B R"]
    joint: Float[Tensor, "B R"]
    exploit: Bool[Tensor, "B R"]

    def total(self, value: Float[Tensor, "B R"]) -> Float[Tensor, " B"]:
        """Sum over the exploitation rounds."""
        return (value * self.exploit).sum(-1)


def by_round(state: DecodeState, joint: Float[Tensor, "B L"]) -> Rounds:
    """Sum the tokens of every round.

    Args:
        state: final state.
        joint: nats of every token by the chain, in an order that keeps the rounds.
    """
    predicted = is_predicted(state)
    round_index = torch.where(predicted, state.committed_round, 0)
    blank = torch.zeros(len(round_index), int(round_index.max()) + 1, device=round_index.device)

    def summed(value: Tensor) -> Tensor:
        return blank.scatter_add(-1, round_index, torch.where(predicted, value, 0.0))[:, 1:]

    accepted = (state.reason == int(Reason.EXPLOIT)).float()
    ones = torch.ones_like(accepted)
    return Rounds(summed(ones), summed(information(state)), summed(joint), summed(accepted) > 0)


def joint_bound(size: Float[Tensor, "*shape"], factor: float) -> Float[Tensor, "*shape"]:
    """Nats that a factor-rule round of m positions reveals jointly at most: log((m + 1) / ((1 - f) m + 1)).

    By the union bound p(x_A | x_C) >= 1 - sum_i (1 - p_i), which holds where the conditionals are those of one joint distribution.
    """
    return ((size + 1) / ((1 - factor) * size + 1)).log()
