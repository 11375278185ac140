"""What a cascade computes beside the blocks that it runs again: where they start from, and the distributions they end in."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import embedding, linear, pad

from models.engine.figures import least
from models.engine.stream import predicting

Figures = tuple[Int[Tensor, "*M 5"], Float[Tensor, "*M 5"], Float[Tensor, "*M"]]
"""The five candidates of a forward, their log-probabilities, and log sum exp of its logits."""


def distribution(
    after: Float[Tensor, "*M D"], figures: Figures, out: tuple[Tensor, Tensor, Tensor]
) -> Float[Tensor, "*M 6"]:
    """Log-probabilities of five candidates, and of all other tokens together, by hidden states after the final norm.

    Args:
        after: the states.
        figures: of the forward before.
        out: weight of the LM head, and weight and bias of what says the rest.
    """
    tokens, known, log_normaliser = figures
    weight, rest, bias = out
    logits = logits_of(weight, tokens, after).float()
    logits = (logits - log_normaliser.unsqueeze(-1)).masked_fill(known <= least(), least())
    others = rest_of(known) + linear(after.to(rest.dtype), rest, bias)
    return torch.cat([logits, others], -1).log_softmax(-1)


def logits_of(
    weight: Float[Tensor, "V D"], tokens: Int[Tensor, "*M 5"], after: Float[Tensor, "*M D"]
) -> Float[Tensor, "*M 5"]:
    """Logits of a few tokens, as a product of matrices on a GPU: a sum over D would be left to a few of its processors."""
    if after.is_cuda:
        return (weight[tokens] @ after.unsqueeze(-1)).squeeze(-1)
    logits: Tensor = torch.linalg.vecdot(weight[tokens], after.unsqueeze(-2))
    return logits


def enter(
    held: Float[Tensor, "C L D"],
    canvas: Int[Tensor, " N"],
    place: tuple[Tensor, ...],
    shift: int,
    rows: Bool[Tensor, "N L"],
    committed: Bool[Tensor, "N L"],
    token: Int[Tensor, "N L"],
    weights: tuple[Tensor, Tensor],
) -> tuple[Bool[Tensor, "N H"], Float[Tensor, "N H D"]]:
    """Which states of a window run, and what they start from: those of the base, with the committed tokens put in.

    Args:
        held: input of the first block, of all canvases in the buffers.
        canvas: which of them.
        place: `rows`, `inside`, `states` and `predictor` of the window.
        shift: states that stand before the window.
        rows: positions that the forward predicted.
        committed: those that are taken for committed.
        token: what they hold.
        weights: the base's embedding, and what its rows are put in by.
    """
    window, inside, states, predictor = place
    table, inject = weights
    taken, left = (chosen.gather(1, window) & inside for chosen in (committed, rows & ~committed))
    own = pad(taken, (shift, 0))
    embedded = embedding(token.gather(1, states).clamp(min=0), table)
    added = linear(embedded.to(inject.dtype), inject) * own.unsqueeze(-1)
    return own | predicting(predictor, left, shift), held[canvas.unsqueeze(-1), states] + added.to(held.dtype)


def leave(
    after: Float[Tensor, "N H D"],
    place: tuple[Tensor, Tensor],
    figures: Figures,
    out: tuple[Tensor, Tensor, Tensor],
    curve: Float[Tensor, "2 R"],
) -> Float[Tensor, "N W 6"]:
    """What the states of a window say of its places.

    Args:
        after: the states after the final norm.
        place: places of the window, and which of the states predicts each.
        figures: of the forward before, at every position.
        out: as in `distribution`.
        curve: as in `shrunk`.
    """
    window, predictor = place
    after = after.gather(1, predictor.unsqueeze(-1).expand(-1, -1, after.shape[-1]))
    tokens, known, normaliser = figures
    wide = window.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
    picked = (tokens.gather(1, wide), known.gather(1, wide), normaliser.gather(1, window))
    log_probs = distribution(after, picked, out)
    return shrunk(log_probs, curve) if curve.shape[1] else log_probs


def shrunk(log_probs: Float[Tensor, "*M 6"], curve: Float[Tensor, "2 R"]) -> Float[Tensor, "*M 6"]:
    """The distributions with as much taken from the likeliest as the risks of states held out ask for, shared by the others.

    r = 1 - max p becomes max(r, s(r)), s being `seen` over `foretold` in logarithms, as far as the likeliest
    stays the likeliest.
    """
    x, y = curve
    best = log_probs.argmax(-1, keepdim=True)
    others = log_probs.scatter(-1, best, -torch.inf)
    risk = others.logsumexp(-1, keepdim=True)
    place = torch.bucketize(risk, x)
    low, high = (place - 1).clamp(min=0), place.clamp(max=len(x) - 1)
    part = (risk - x[low]) / (x[high] - x[low]).clamp(min=1e-7)
    less = torch.maximum(risk, torch.lerp(y[low], y[high], part.clamp(0, 1)))
    most = -(others.amax(-1, keepdim=True) - risk).exp().log1p()
    less = torch.minimum(less, torch.maximum(most, risk))
    return (others + (less - risk)).scatter(-1, best, (-less.expm1()).log())


def rest_of(log_probs: Float[Tensor, "*M 5"]) -> Float[Tensor, "*M 1"]:
    """Log-probability of all other tokens."""
    return (-log_probs.exp().sum(-1, keepdim=True)).clamp(min=-1 + 1e-7).log1p()
