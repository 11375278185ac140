"""The fewest rounds that a fixed schedule needs, by exact search, beside what a policy takes and loses on the same joint.

A schedule A_1, .., A_R loses KL(p || q) = sum_r sum_{i in A_r} H(X_i | X_{C_r}) - H(X), C_r what was revealed before: a shortest
path over the subsets of the positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decoding.loop import decode
from decoding.policy import Needs, Policy, first_state
from decoding.reading import Reading
from decoding.sampling import Sampling
from decoding.state import DecodeState, Proposal
from models.toys.block_hmm import BlockHMM, BlockHMMConfig
from models.toys.toy import JointDenoiser


def markov_joint(parents: Sequence[int], flip: float) -> Tensor:
    """Bits that copy their parent's value but for a share of flips; parent -1 is a fair coin. A chain or a tree."""
    count = len(parents)
    bits = torch.cartesian_prod(*[torch.arange(2)] * count)
    p = torch.ones(2**count, dtype=torch.double)
    for position, parent in enumerate(parents):
        same = bits[:, position] == bits[:, parent]
        p = p * (0.5 if parent < 0 else torch.where(same, torch.tensor(1 - flip), torch.tensor(flip)).double())
    return p.view(*[2] * count)


def chain_joint(count: int, flip: float) -> Tensor:
    """X_1 - X_2 - .. - X_n."""
    return markov_joint(range(-1, count - 1), flip)


def tree_joint(count: int, flip: float) -> Tensor:
    """A binary tree in the order of a heap."""
    return markov_joint([(position - 1) // 2 if position else -1 for position in range(count)], flip)


def block_joint(config: BlockHMMConfig) -> Tensor:
    """A small Block-HMM."""
    bits = torch.cartesian_prod(*[torch.arange(2)] * config.length)
    return BlockHMM(config).log_prob(bits).exp().view(*[2] * config.length)


def subset_entropies(joint: Tensor) -> Float[Tensor, " s"]:
    """H(X_S) in nats for every set S of positions, bit i of the index standing for position i."""
    entropies = torch.zeros(2**joint.ndim, dtype=torch.double)
    for subset in range(1, 2**joint.ndim):
        out = [position for position in range(joint.ndim) if not subset >> position & 1]
        marginal = joint.sum(out) if out else joint
        entropies[subset] = torch.special.entr(marginal).sum()
    return entropies


@dataclass(frozen=True)
class Search:
    """What the best schedules lose.

    Attributes:
        kl: [R] least KL(p || q) with 1, 2, .. rounds at most.
        schedules: one that attains it, the round (1-based) of every position.
    """

    kl: list[float]
    schedules: list[list[int]]

    def fewest(self, delta: float) -> int:
        """The fewest rounds with KL <= delta."""
        return 1 + next(r for r, loss in enumerate(self.kl) if loss <= delta + 1e-9)


def search(joint: Tensor) -> Search:
    """Exact search over all fixed schedules (ordered partitions of the positions)."""
    entropy, count = subset_entropies(joint), joint.ndim
    index = torch.arange(2**count)
    contains = (index.unsqueeze(1) & index) == index.unsqueeze(1)  # [C, D]: C within D
    cost = entropy.unsqueeze(1) - entropy
    for position in range(count):
        alone = entropy[index | 1 << position] - entropy  # H(X_i | X_C)
        cost += ((index.unsqueeze(1) ^ index) >> position & 1) * alone.unsqueeze(1)
    cost = cost.masked_fill(~contains, math.inf)
    best = torch.full((2**count,), math.inf, dtype=torch.double)
    best[0] = 0.0
    losses, came_from, schedules = [], [], []
    for _ in range(count):
        best, origin = (best.unsqueeze(1) + cost).min(0)
        came_from.append(origin.tolist())
        losses.append(max(0.0, float(best[-1])))
        schedules.append(_trace(came_from, count))
    return Search(losses, schedules)


def _trace(came_from: list[list[int]], count: int) -> list[int]:
    here, schedule = 2**count - 1, [0] * count
    for turn in range(len(came_from), 0, -1):
        before = came_from[turn - 1][here]
        for position in range(count):
            if (here ^ before) >> position & 1:
                schedule[position] = turn
        here = before
    return [sorted({*schedule}).index(turn) + 1 for turn in schedule]


@final
@dataclass(frozen=True)
class Forced(Policy):
    """Another policy that must write given tokens: it chooses positions by max p, and p(token) is what the draw would have had.

    That p is right for bits alone: 1 - c is the other token's.

    Args:
        inner: a policy without look-ahead.
        target: the tokens, a row each.
    """

    inner: Policy
    target: Int[Tensor, "B L"]

    @property
    def needs(self) -> Needs:
        """As the inner one."""
        return self.inner.needs

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """The inner proposal with the given tokens."""
        proposal = self.inner.propose(state, reading)
        agrees = reading.token == self.target
        confidence = torch.where(agrees, reading.confidence, reading.log_risk.exp()) * reading.rows
        tokens = torch.where(proposal.reason > 0, self.target.unsqueeze(1), state.tokens.unsqueeze(1))
        return replace(proposal, tokens=tokens, confidence=confidence.unsqueeze(1))


@dataclass(frozen=True)
class Need:
    """What a policy takes and loses, over all sequences weighed by p.

    Attributes:
        rounds: E_p[R].
        forward_kl: KL(p || q), q positions by max p and tokens drawn.
    """

    rounds: float
    forward_kl: float


@dataclass(frozen=True)
class Law:
    """What a policy makes of a joint, over all its sequences.

    Attributes:
        p: the joint.
        log_q: of the policy, positions by max p and tokens drawn.
        rounds: until the sequence is written.
    """

    p: Float[Tensor, " s"]
    log_q: Float[Tensor, " s"]
    rounds: Float[Tensor, " s"]

    @property
    def forward_kl(self) -> float:
        """KL(p || q) in nats."""
        return float((torch.xlogy(self.p, self.p) - self.p * self.log_q).sum())

    @property
    def reverse_kl(self) -> float:
        """KL(q || p) in nats."""
        return float((self.log_q.exp() * (self.log_q - self.p.log())).sum())


def need(joint: Tensor, policy: Policy, *, block_length: int | None = None) -> Need:
    """Rounds and forward KL of a policy (see `law`)."""
    own_law = law(joint, policy, block_length=block_length)
    return Need(round(float(own_law.p @ own_law.rounds), 9), own_law.forward_kl)


def law(joint: Tensor, policy: Policy, *, block_length: int | None = None) -> Law:
    """Run a policy down every sequence of a joint of bits, exactly: no draw is made.

    Args:
        joint: p, at most about 12 bits.
        policy: without look-ahead and without taking back.
        block_length: default the whole sequence.
    """
    model = JointDenoiser(joint)
    every = model.sequences
    canvas = {"gen_length": joint.ndim, "block_length": block_length or joint.ndim}
    state = first_state(model, torch.zeros_like(every), policy, **canvas, end_ids=None)
    sampling = Sampling(forbidden=(model.mask_id,), noise=policy.needs.noise)
    final, counts = decode(
        model, state, Forced(policy, every), sampling=sampling, generator=torch.Generator().manual_seed(0)
    )
    log_q = final.committed_confidence.double().clamp(min=1e-30).log().sum(-1)
    rounds = final.committed_round.amax(-1).double()
    assert int(rounds.max()) == counts.nfe
    return Law(model.joint.double(), log_q, rounds)
