"""What a head may say of two positions: whether committing one changes the candidate of the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Pairs:
    """Conflicts of all positions of a canvas, in low rank; meaningless where one of the two was not asked for.

    Attributes:
        query, key: q(x_i) and k(x_j).
        sends: a(x_i), how much position i changes others.
        takes: b(x_j) plus the log-odds of 1 - c_j, how easily position j is changed.
    """

    query: Float[Tensor, "N L d"]
    key: Float[Tensor, "N L d"]
    sends: Float[Tensor, "N L"]
    takes: Float[Tensor, "N L"]

    @property
    def logit(self) -> Float[Tensor, "N L L"]:
        """logit_ij = q_i . k_j / sqrt(d) + a_i + b_j, i the position committed and j the one it changes."""
        product: Tensor = self.query @ self.key.transpose(-1, -2) / self.query.shape[-1] ** 0.5
        return product + self.sends.unsqueeze(-1) + self.takes.unsqueeze(-2)

    @property
    def conflict(self) -> Float[Tensor, "N L L"]:
        """kappa_ij in (0, 1), the probability that the candidate at j is another one after i is committed."""
        return self.logit.sigmoid()


class PairOutput(nn.Module):
    """q, k, a and b of every position from the vector that the read-out reads.

    All but q start at 0: an untrained output says 1 - c_j, whatever is committed.
    """

    def __init__(self, inward: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.outward = nn.Linear(inward, 2 * width + 2)
        nn.init.zeros_(self.outward.weight[width:])
        nn.init.zeros_(self.outward.bias[width:])

    def forward(self, inward: Tensor, rows: Bool[Tensor, "N L"], prior: Float[Tensor, "N L"]) -> Pairs:
        """The pairs of a batch.

        Args:
            inward: a vector for every position, [N L W], or for those in `rows` alone, [M W].
            rows: the positions asked for.
            prior: log-odds of 1 - c.
        """
        found = self.outward(inward)
        if inward.ndim == 2:
            found = found.new_zeros(*rows.shape, found.shape[-1]).masked_scatter(rows.unsqueeze(-1), found)
        query, key, sends, takes = torch.split(found, [self.width, self.width, 1, 1], -1)
        return Pairs(query, key, sends.squeeze(-1), takes.squeeze(-1) + prior)
