"""What a head says in the window of a forward by the engine, as tensor programs behind its side-stream."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from models.engine.stream import predicting
from models.heads.conflict_output import Conflicts


def prior_of(log_risk: Float[Tensor, "*N L"]) -> Float[Tensor, "*N L"]:
    """log(1 - c) - log c, the risk that the confidence itself says; not from log p1: the candidate need not be the top token."""
    return log_risk - (-log_risk.expm1()).clamp(min=1e-9).log()


def states_asked(
    rows: Bool[Tensor, "N L"],
    window: Int[Tensor, "N W"],
    inside: Bool[Tensor, "N W"],
    predictor: Int[Tensor, "N W"],
    shift: int,
) -> Bool[Tensor, "N H"]:
    """The states of a window that predict the rows asked for.

    Args:
        rows: positions of the canvas asked for.
        window: the canvas position of each place.
        inside: which places are filled.
        predictor: the state that predicts each place.
        shift: 1 where a state predicts the position after it, else 0.
    """
    return predicting(predictor, rows.gather(1, window) & inside, shift)


def scores_of(
    head: Any,
    features: Float[Tensor, "N L F"],
    rows: Bool[Tensor, "N L"],
    token: Int[Tensor, "N L"],
    after: Float[Tensor, "N H D"],
    place: tuple[Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor, Conflicts | None]:
    """Logits of risks, gains, and conflicts, from the states that a side-stream ends in.

    Args:
        head: reads them.
        features: of every position.
        rows: positions scored.
        token: candidates.
        after: states of the window.
        place: places of the window, which state predicts each, and which of them stands for each position.
    """
    window, predictor, back = place

    def pick(values: Tensor) -> Tensor:
        at = window if values.ndim == 2 else window.unsqueeze(-1).expand(-1, -1, values.shape[-1])
        return values.gather(1, at)

    scaled = (pick(features) - head.mean) / head.spread
    after = after.gather(1, predictor.unsqueeze(-1).expand(-1, -1, after.shape[-1])).to(scaled.dtype)
    inward = torch.cat([scaled, after], -1)
    said = head.readout(inward)
    said = said.gather(1, back.unsqueeze(-1).expand(-1, -1, said.shape[-1]))
    correction = torch.where(rows.unsqueeze(-1), said, torch.zeros_like(said))
    log_risk = features[..., head.config.feature_names.index("log_risk")]
    prior = prior_of(log_risk).masked_fill(~rows, 0.0)
    conflicts = None if head.pairs is None else head.pairs(inward, pick(rows), pick(prior), pick(token))
    return prior + head.config.trust * correction[..., 0], correction[..., 1], conflicts
