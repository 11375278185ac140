"""n rounds of remasking one block of the Block-HMM, exactly: the law over its 2^B patterns after every round.

A round masks s positions again and draws each from its conditional on the rest of the block, all at once (mean field):
q_{n+1} = q_n K, with K averaged over the sets S that may be masked. Section 5.4 and proposition C.5 of arXiv 2602.00286.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from decoding.studies.block_hmm.divergence import kl
from models.toys.block_hmm import BlockHMM, BlockHMMConfig


@dataclass(frozen=True)
class Block:
    """One block's patterns, its joint law p, and the product of its marginals.

    Attributes:
        patterns: bits of every pattern.
        joint: p.
        mean_field: prod_i p(x_i).
    """

    patterns: Float[Tensor, "p B"]
    joint: Float[Tensor, " p"]
    mean_field: Float[Tensor, " p"]

    @staticmethod
    def first(config: BlockHMMConfig) -> Block:
        """The first block, before anything is revealed."""
        model = BlockHMM(config)
        blank = torch.full((1, config.length), model.mask_id)
        joint = model.block_joint(blank, 0)[0]
        marginals = model.marginals(blank)[0, : config.size]
        mean_field = marginals.gather(-1, model.patterns.long().T).prod(0)
        return Block(model.patterns, joint, mean_field)

    @property
    def broken(self) -> Bool[Tensor, " p"]:
        """Patterns whose parity is wrong."""
        return self.patterns.sum(-1) % 2 == 1

    def redraw(self, masked: Sequence[int]) -> Float[Tensor, "p p"]:
        """K_S(x, x') = [x' = x outside S] prod_{i in S} p(x'_i | x outside S)."""
        kept = [i for i in range(self.patterns.shape[1]) if i not in masked]
        same = (self.patterns[:, None, kept] == self.patterns[None, :, kept]).all(-1).double()
        given = same * self.joint
        given = given / given.sum(-1, keepdim=True)
        ones = given @ self.patterns[:, list(masked)]  # p(x_i = 1 | x outside S)
        drawn = self.patterns[None, :, list(masked)]
        each = torch.where(drawn == 1, ones.unsqueeze(1), 1 - ones.unsqueeze(1))
        return same * each.prod(-1)

    def random_round(self, size: int) -> Float[Tensor, "p p"]:
        """Mask a random set of `size` positions again."""
        sets = list(combinations(range(self.patterns.shape[1]), size))
        return torch.stack([self.redraw(masked) for masked in sets]).mean(0)

    def lowest_round(self, size: int) -> Float[Tensor, "p p"]:
        """Mask the `size` positions again that the rest of the block bears out least, by p(x_i | the others)."""
        width = self.patterns.shape[1]
        support = torch.stack([self.redraw([i]).diagonal() for i in range(width)], -1)
        order = support.argsort(dim=-1, stable=True)[:, :size].sort(-1).values
        kernel = torch.zeros(len(self.joint), len(self.joint), dtype=torch.double)
        for masked in torch.unique(order, dim=0).tolist():
            matching = (order == torch.tensor(masked)).all(-1)
            kernel[matching] = self.redraw(masked)[matching]
        return kernel


def remasking(config: BlockHMMConfig, rounds: Sequence[int], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Reverse KL and share of broken parities of the first block after n rounds of each rule.

    Args:
        config: the model.
        rounds: n.
        sizes: positions masked in a round.
    """
    block, table = Block.first(config), []
    for rule in ("random", "lowest"):
        for size in sizes:
            kernel = block.random_round(size) if rule == "random" else block.lowest_round(size)
            law, done = block.mean_field, 0
            for n in sorted({0, *rounds}):
                for _ in range(n - done):
                    law = law @ kernel
                done = n
                figures = {"reverse_kl": float(kl(law, block.joint)), "broken": float(law[block.broken].sum())}
                table.append({"rule": rule, "masked": size, "rounds": n, **figures})
    return table
