"""The distributions of the forward before, for rules that ask how far a prediction has moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from models.denoiser import Prediction


@final
class Earlier:
    """Keeps the distributions of one canvas of every row from one forward to the next.

    Args:
        rows, length: of the batch.
        device: of its tensors.
    """

    def __init__(self, rows: int, length: int, device: torch.device) -> None:
        self.place = torch.full((rows, length), -1, device=device)
        self.log_probs = torch.zeros(0, 0, device=device)

    def drift(self, prediction: Prediction, row: Int[Tensor, " N"]) -> Float[Tensor, "N L"]:
        """KL(p || q) in nats, q the distribution of the forward before; infinite where that did not ask, 0 outside the rows.

        Args:
            prediction: of this forward, whose distributions are kept.
            row: the prompt of each canvas.
        """
        now = prediction.logits.float().log_softmax(-1)
        before = self.place[row][prediction.rows]
        known = before >= 0
        moved = torch.full_like(now[:, 0], torch.inf)
        if known.any():
            moved[known] = kullback_leibler(now[known], self.log_probs[before[known]])
        drift = torch.zeros(prediction.rows.shape, device=now.device).masked_scatter(prediction.rows, moved)
        own = torch.full_like(drift, -1, dtype=torch.long)
        self.place.fill_(-1)
        self.place[row] = own.masked_scatter(prediction.rows, torch.arange(len(now), device=now.device))
        self.log_probs = now
        return drift

    def extend(self, left: int) -> None:
        """Put columns before every row; fewer than none take columns off."""
        self.place = torch.nn.functional.pad(self.place, (left, 0), value=-1)

    def forget(self, places: Sequence[int]) -> None:
        """Other prompts begin at these places of the batch."""
        self.place[list(places)] = -1


def kullback_leibler(log_p: Float[Tensor, "m V"], log_q: Float[Tensor, "m V"]) -> Float[Tensor, " m"]:
    """KL(p || q) = sum_v p(v) (log p(v) - log q(v)) in nats; a token that p rules out adds nothing."""
    possible = log_p > -torch.inf
    return torch.where(possible, log_p.exp() * (log_p - log_q), 0.0).sum(-1)


def narrowed(prediction: Prediction, rows: Bool[Tensor, "N L"]) -> Prediction:
    """The prediction at those of its positions that are in `rows`."""
    kept = prediction.rows & rows
    return replace(prediction, logits=prediction.logits[kept[prediction.rows]], rows=kept)
