"""What block decoding loses against the Block-HMM, exactly: KLs both ways, incoherence, total correlation, proposals.

p_B(x) = prod_m p(x_{B_m} | x_{P_m}) position by position; KL(p || p_B) = sum_m E_p[TC_m], KL(p_B || p) = sum_m E_{p_B}[TC_m
backwards] (arXiv 2602.00286, Eqs. 15 to 18). What a block says of the states is the number of ones among its free bits, so a
prefix is a sequence of such numbers, and the sums run over all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from models.toys.block_hmm import BlockHMMConfig

CHUNK = 1 << 18


@dataclass(frozen=True)
class BlockLaws:
    """The laws of one block under beliefs about its state, over (ones among the free bits) x (parity bit).

    Attributes:
        exact: p, of all patterns with these counts together.
        mean_field: the product of p's marginals, likewise.
        patterns: how many patterns share these counts.
        kept: whether the parity holds.
    """

    exact: Float[Tensor, "N k 2"]
    mean_field: Float[Tensor, "N k 2"]
    patterns: Float[Tensor, "k 1"]
    kept: Bool[Tensor, "k 2"]

    @property
    def total_correlation(self) -> Float[Tensor, " N"]:
        """KL(p || prod of its marginals)."""
        return kl(self.exact.flatten(1), self.mean_field.flatten(1))

    @property
    def reverse(self) -> Float[Tensor, " N"]:
        """KL(prod of the marginals || p)."""
        return kl(self.mean_field.flatten(1), self.exact.flatten(1))

    @property
    def proposals(self) -> Float[Tensor, " N"]:
        """M = sup p / prod of its marginals: what exact accept-reject needs a block, at least exp(TC)."""
        return (self.exact / self.mean_field).flatten(1).amax(-1)

    @property
    def entropy(self) -> Float[Tensor, " N"]:
        """H(p) of the block's patterns, in nats."""
        return -(torch.xlogy(self.exact, self.exact) - torch.xlogy(self.exact, self.patterns)).sum((-2, -1))

    def incoherent(self, bar: float) -> Float[Tensor, " N"]:
        """Pr that a mean-field block has p(block | prefix) <= bar."""
        return (self.mean_field * (self.exact / self.patterns <= bar)).sum((-2, -1))

    @property
    def broken(self) -> Float[Tensor, " N"]:
        """Pr that a mean-field block breaks its parity."""
        return (self.mean_field * ~self.kept).sum((-2, -1))


def kl(p: Float[Tensor, "*n k"], q: Float[Tensor, "*n k"]) -> Float[Tensor, "*n"]:
    """KL(p || q) in nats."""
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)


def laws(config: BlockHMMConfig, belief: Float[Tensor, "N z"]) -> BlockLaws:
    """Both laws of a block for each belief about its state."""
    free = config.size - 1
    rho = torch.tensor(config.rho, dtype=torch.double)
    ones = torch.arange(free + 1, dtype=torch.double)
    patterns = torch.tensor([math.comb(free, k) for k in range(free + 1)], dtype=torch.double).unsqueeze(-1)
    kept = torch.stack([ones % 2 == 0, ones % 2 == 1], -1)
    parity = kept.double() * (1 - config.eta) + (~kept).double() * config.eta
    counts = patterns.T * rho.unsqueeze(-1) ** ones * (1 - rho).unsqueeze(-1) ** (free - ones)  # [z, k]
    exact = (belief @ counts).unsqueeze(-1) * parity
    rate = (belief @ rho).unsqueeze(-1)
    bits = patterns.T * rate**ones * (1 - rate) ** (free - ones)
    return BlockLaws(exact, bits.unsqueeze(-1) * exact.sum(1, keepdim=True), patterns, kept)


def after(config: BlockHMMConfig, belief: Float[Tensor, "N z"]) -> Float[Tensor, "N k z"]:
    """Belief about the next block's state after each number of ones."""
    free = config.size - 1
    rho = torch.tensor(config.rho, dtype=torch.double)
    ones = torch.arange(free + 1, dtype=torch.double).unsqueeze(-1)
    posterior = belief.unsqueeze(1) * rho**ones * (1 - rho) ** (free - ones)
    return (posterior / posterior.sum(-1, keepdim=True)) @ config.transition


@dataclass(frozen=True)
class Divergence:
    """Mean-field block decoding of a whole sequence against the model it reads.

    Attributes:
        forward_kl: KL(p || p_B), the sum of the blocks' total correlations.
        reverse_kl: KL(p_B || p).
        incoherence: share of the blocks drawn with p(block | prefix) <= bar.
        broken: share of the blocks drawn whose parity is wrong.
        entropy: H(p) of the whole sequence, in nats.
    """

    forward_kl: float
    reverse_kl: float
    incoherence: float
    broken: float
    entropy: float


def divergence(config: BlockHMMConfig, *, bar: float = 1e-8) -> Divergence:
    """Exact figures of mean-field block decoding, by enumeration of the counts in every prefix.

    Args:
        config: the model.
        bar: tau, what a block conditional must exceed to be coherent.
    """
    states = len(config.rho)
    belief = torch.full((1, states), 1 / states, dtype=torch.double)
    weight = torch.ones(1, 2, dtype=torch.double)  # of the prefix under p, and under p_B
    total = torch.zeros(5, dtype=torch.double)
    for block in range(config.blocks):
        following, weights = [], []
        for few, mass in zip(torch.split(belief, CHUNK), torch.split(weight, CHUNK), strict=True):
            here = laws(config, few)
            of_p = torch.stack([here.total_correlation, here.entropy]) @ mass[:, 0]
            of_mean_field = torch.stack([here.reverse, here.incoherent(bar), here.broken]) @ mass[:, 1]
            total += torch.cat([of_p, of_mean_field])
            if block + 1 < config.blocks:
                following.append(after(config, few).flatten(0, 1))
                both = torch.stack([here.exact.sum(-1), here.mean_field.sum(-1)], -1)
                weights.append((both * mass.unsqueeze(1)).flatten(0, 1))
        if following:
            belief, weight = merge(torch.cat(following), torch.cat(weights))
    forward, entropy, reverse, incoherence, broken = total.tolist()
    return Divergence(forward, reverse, incoherence / config.blocks, broken / config.blocks, entropy)


def merge(belief: Float[Tensor, "N z"], weight: Float[Tensor, "N 2"]) -> tuple[Tensor, Tensor]:
    """The prefixes with one belief together; beliefs that differ in the 13th digit count as one."""
    group: Int[Tensor, " N"] = torch.zeros(len(belief), dtype=torch.long)
    for column in (belief * 1e13).round().long().unbind(-1):  # far faster than the unique rows
        _, digit = torch.unique(column, return_inverse=True)
        _, group = torch.unique(group * (int(digit.max()) + 1) + digit, return_inverse=True)
    count = int(group.max()) + 1
    merged = torch.zeros(count, 2, dtype=torch.double).index_add(0, group, weight)
    first = torch.zeros(count, belief.shape[1], dtype=torch.double).index_copy(0, group, belief)
    return first, merged
