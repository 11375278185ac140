"""Losses of a cascade: how far it is from the next forward in five candidates, in their change, or over all tokens."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear

from models.heads.cascade import Cascade
from models.heads.foretelling import distribution
from train.cascade.examples import CascadeExample, divergence
from train.head.settings import CascadeTarget

LEAST = -12.0  # log-probability below which a change is none


def losses_of(example: CascadeExample, cascade: Cascade, target: CascadeTarget) -> Float[Tensor, " M"]:
    """The loss of an example at every position left.

    `candidates`: KL of the next forward from the cascade over the state's five candidates and the rest as one. `residual`: half
    the squared error of the change of these six log-probabilities. `whole`: KL over the whole vocabulary, and that of `candidates`
    for what says the rest alone.

    Args:
        example: with `logits` for `whole`.
        cascade: that is fitted.
        target: which of them.
    """
    if target == "whole":
        return whole(example, cascade)
    said = example.foretold(cascade)
    if target == "residual":
        return residual(example.target, said)
    return divergence(example.target, said)


def residual(target: Float[Tensor, "M 6"], said: Float[Tensor, "M 6"]) -> Float[Tensor, " M"]:
    """Half the squared error of the log-probabilities, those under LEAST as LEAST; what the state said cancels out."""
    error: Tensor = target.clamp(min=LEAST) - said.clamp(min=LEAST)
    return 0.5 * error.square().sum(-1)


def whole(example: CascadeExample, cascade: Cascade) -> Float[Tensor, " M"]:
    """KL(next forward || softmax(W h)) over the vocabulary, h the cascade's state and W the LM head.

    Raises:
        ValueError: for an example without the logits of its next forward.
    """
    if example.logits is None:
        raise ValueError("example must hold the logits of its next forward for the whole distribution, got none")
    reading = example.reading
    taps: Any = reading.taps
    after, left = cascade.states(taps, reading.rows, example.committed, reading.token)
    after = after[example.left[left]]
    said = linear(after, cascade.base.lm_head.weight).float().log_softmax(-1)
    wanted = example.logits.float().log_softmax(-1)
    kl = (wanted.exp() * (wanted - said)).sum(-1)
    figures = (
        reading.top_tokens[example.left], reading.top_log_probs[example.left], reading.log_normaliser[example.left],
    )  # fmt: skip
    out = (cascade.base.lm_head.weight, cascade.rest.weight, cascade.rest.bias)
    rest: Tensor = divergence(example.target, distribution(after.detach(), figures, out))
    return torch.add(kl, rest)
