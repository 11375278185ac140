"""What a head may say of two positions: whether committing one changes the candidate of the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class Conflicts:
    """Conflicts of all positions of a canvas or a window of it, in low rank; meaningless where one of the two was not asked for.

    Attributes:
        query, key: q(x_i) and k(x_j).
        sends: a(x_i), how much position i changes others.
        takes: b(x_j) plus the log-odds of 1 - c_j, how easily position j is changed.
        relation: e_ij, what it is to the two that they lie j - i places apart and have the same candidate or not; None without.
    """

    query: Float[Tensor, "N L d"]
    key: Float[Tensor, "N L d"]
    sends: Float[Tensor, "N L"]
    takes: Float[Tensor, "N L"]
    relation: Float[Tensor, "N L L"] | None = None

    @property
    def logit(self) -> Float[Tensor, "N L L"]:
        """logit_ij = q_i . k_j / sqrt(d) + a_i + b_j + e_ij, i the position committed and j the one it changes."""
        product: Tensor = self.query @ self.key.transpose(-1, -2) / self.query.shape[-1] ** 0.5
        logit = product + self.sends.unsqueeze(-1) + self.takes.unsqueeze(-2)
        return logit if self.relation is None else logit + self.relation

    @property
    def probability(self) -> Float[Tensor, "N L L"]:
        """kappa_ij in (0, 1), the probability that the candidate at j is another one after i is committed."""
        return self.logit.sigmoid()


class ConflictOutput(nn.Module):
    """q, k, a and b of every position from the vector that the read-out reads, and e from how two positions lie to each other.

    e_ij = R[s, o, 0] + sum_d R[s, o, d] q_id with o = j - i, at most `reach` either way, and s = [the candidates are the same].
    All but q starts at 0: an untrained output says 1 - c_j, whatever is committed.
    """

    def __init__(self, inward: int, width: int, reach: int = 0) -> None:
        super().__init__()
        self.width, self.reach = width, reach
        self.outward = nn.Linear(inward, 2 * width + 2)
        nn.init.zeros_(self.outward.weight[width:])
        nn.init.zeros_(self.outward.bias[width:])
        self.relation = nn.Parameter(torch.zeros(2, 2 * reach + 1, width + 1)) if reach else None

    def relate(self, query: Tensor, token: Int[Tensor, "N L"]) -> Float[Tensor, "N L L"] | None:
        """e_ij of every two positions."""
        if self.relation is None:
            return None
        position = torch.arange(token.shape[-1], device=token.device)
        offset = (position - position.unsqueeze(-1)).clamp(-self.reach, self.reach) + self.reach
        table = self.relation[:, offset]  # [2, L, L, 1 + d]
        other, same = (torch.einsum("nid,ijd->nij", query, table[s, ..., 1:]) + table[s, ..., 0] for s in range(2))
        return torch.where(token.unsqueeze(-1) == token.unsqueeze(-2), same, other)

    def forward(
        self, inward: Tensor, rows: Bool[Tensor, "N L"], prior: Float[Tensor, "N L"], token: Int[Tensor, "N L"]
    ) -> Conflicts:
        """The conflicts of a batch.

        Args:
            inward: a vector for every position, [N L W], or for those in `rows` alone, [M W].
            rows: the positions asked for.
            prior: log-odds of 1 - c.
            token: the candidates.
        """
        projected = self.outward(inward)
        if inward.ndim == 2:
            projected = projected.new_zeros(*rows.shape, projected.shape[-1]).masked_scatter(
                rows.unsqueeze(-1), projected
            )
        query, key, sends, takes = torch.split(projected, [self.width, self.width, 1, 1], -1)
        return Conflicts(query, key, sends.squeeze(-1), takes.squeeze(-1) + prior, self.relate(query, token))
