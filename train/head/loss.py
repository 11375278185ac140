"""Losses of the scoring head: pure functions of scores and labels."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from models.ranks import find_ranks


def over_all(total: Tensor, count: Tensor) -> Tensor:
    """total / n, n being the count of all processes, at least 1: the sum over these is the mean of the whole batch."""
    mean: Tensor = total / find_ranks().sum(count).clamp(min=1)
    return mean


def risk_loss(
    logit: Float[Tensor, "S L"], wrong: Float[Tensor, "S L"], known: Bool[Tensor, "S L"], *, focus: float = 0.0
) -> Tensor:
    """Binary cross-entropy of "the candidate is wrong" over the known positions.

    Weights w = 1 + focus * [position is wrong and rated safe], rated safe being a predicted risk under one half: errors at the
    careful end are rare and decide the curve.

    Args:
        logit: of the risk.
        wrong: 1 where the candidate is.
        known: positions with a label.
        focus: extra weight, at least 0.
    """
    weight = 1 + focus * wrong * (logit.detach() < 0)
    each = binary_cross_entropy_with_logits(logit, wrong, reduction="none") * weight
    return over_all((each * known).sum(), known.sum())


def conflict_loss(
    logit: Float[Tensor, "S K L"], changed: Float[Tensor, "S K L"], known: Bool[Tensor, "S K L"]
) -> Tensor:
    """Binary cross-entropy of "the branch changes the candidate at j" over the known pairs."""
    picked = logit.masked_fill(~known, 0.0)
    each = binary_cross_entropy_with_logits(picked, changed.to(picked.dtype), reduction="none")
    return over_all((each * known).sum(), known.sum())


def listwise_loss(
    score: Float[Tensor, "S K"], target: Float[Tensor, "S K"], valid: Bool[Tensor, "S K"], *, temperature: float
) -> Tensor:
    """KL(softmax(target / T) || softmax(score / T)) within each state, over its valid branches, averaged over states.

    Only differences within a state matter: a pooled regression would fit how hard a state is instead. States with fewer than two
    valid branches, or whose targets are all equal, teach nothing and are left out.

    Args:
        score: of the head.
        target: gain or Eq. 7.
        valid: branches that are there.
        temperature: T, above 0.
    """
    low = torch.finfo(score.dtype).min
    spread = target.masked_fill(~valid, low).amax(-1) - target.masked_fill(~valid, -low).amin(-1)
    counts = (valid.sum(-1) > 1) & (spread > 0)
    wanted = (target / temperature).masked_fill(~valid, low).softmax(-1)
    predicted = (score / temperature).masked_fill(~valid, low).log_softmax(-1)
    cross = -(wanted * predicted.masked_fill(~valid, 0.0)).sum(-1)
    entropy = torch.special.entr(wanted).sum(-1)
    return over_all(((cross - entropy) * counts).sum(), counts.sum())


def floored(eq7: Float[Tensor, "S K"], valid: Bool[Tensor, "S K"]) -> Float[Tensor, "S K"]:
    """Eq. 7 with a number for branches that set off nothing: 1 under the smallest finite one of the state, so that they rank last.

    In a state in which nothing crossed anywhere all are 0, and equal. What is not valid is no matter, but finite.
    """
    finite = valid & torch.isfinite(eq7)
    least = eq7.masked_fill(~finite, torch.inf).amin(-1, keepdim=True)
    floor = torch.where(finite.any(-1, keepdim=True), least - 1, 0.0)
    return torch.where(finite, eq7, floor)


def huber_gain_loss(score: Float[Tensor, "S K"], gain: Float[Tensor, "S K"], valid: Bool[Tensor, "S K"]) -> Tensor:
    """Huber loss on the gain itself, so that its unit stays positions and can be set against risk."""
    each = torch.nn.functional.huber_loss(score, gain, reduction="none")
    return over_all((each * valid).sum(), valid.sum())
