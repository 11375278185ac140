"""Rules that bound what a round risks as a whole: the longest run of sure positions whose total stays under a bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from decoding.policies.rules import AcceptancePolicy, require
from decoding.policy import ahead, rank
from decoding.reading import Reading


def within_factor(reading: Reading, factor: float) -> Bool[Tensor, "B L"]:
    """The m most confident positions, m the largest with (m + 1)(1 - c_(m)) <= factor; none if m = 1 already fails."""
    place = rank(-reading.log_risk, reading.rows) + 1
    return reading.rows & ((place + 1) * reading.log_risk.exp() <= factor)


def sum_before(value: Tensor, order: Tensor, within: Bool[Tensor, "B L"]) -> Tensor:
    """Sum of `value` over all of `within` that come before a position in descending `order`."""
    if order.is_cuda and torch.compiler.is_compiling():
        return counted_before(value, order, within)
    place = rank(order, within)
    ordered = torch.zeros_like(value).scatter(-1, place, value.masked_fill(~within, 0.0))
    return torch.nn.functional.pad(ordered.cumsum(-1), (1, 0))[..., :-1].gather(-1, place)


def counted_before(value: Tensor, order: Tensor, within: Bool[Tensor, "B L"]) -> Tensor:
    """The same pair by pair: in a compiled program one launch, where a running sum takes four."""
    return value.masked_fill(~within, 0.0).unsqueeze(-2).masked_fill(~ahead(order, within), 0.0).sum(-1)


def prefix_sum(value: Tensor, order: Tensor, within: Bool[Tensor, "B L"]) -> Tensor:
    """The same with the position itself."""
    return sum_before(value, order, within) + value


def within_risk(reading: Reading, bound: float | Tensor) -> Bool[Tensor, "B L"]:
    """The most confident positions whose 1 - c add up to the bound at most."""
    return reading.rows & (prefix_sum(reading.log_risk.exp(), -reading.log_risk, reading.rows) <= bound)


@final
@dataclass(frozen=True)
class Factor(AcceptancePolicy):
    """Commit the more positions the surer they are: the largest m with (m + 1)(1 - c_(m)) <= factor, at least one: Fast-dLLM.

    c_(m) is the m-th largest confidence in the opened blocks. Fast-dLLM, arXiv 2505.22618, `factor`; assumption 3.1 of
    arXiv 2511.21103.

    Args:
        factor: above 0; the rounds bound of arXiv 2511.21103 holds up to 1.
        factor_last: commit the last candidate too where it alone fails, as Fast-dLLM's published loop does by mistake: to compare
            with figures that it made.
    """

    factor: float = 1.0
    factor_last: bool = False

    def __post_init__(self) -> None:
        require(self.factor > 0, "factor", "be above 0", self.factor)

    def accept(self, reading: Reading) -> Bool[Tensor, "B L"]:
        """The leading run of the factor rule."""
        accepted = within_factor(reading, self.factor)
        if not self.factor_last:
            return accepted
        left, taken = reading.rows.sum(-1, keepdim=True), accepted.sum(-1, keepdim=True).clamp(min=1)
        return accepted | (reading.rows & (taken == left - 1))


@final
@dataclass(frozen=True)
class EntropyBound(AcceptancePolicy):
    """Commit the largest set of lowest entropies whose joint dependence is bounded, at least one: EB-Sampler.

    In ascending order of entropy the largest k with sum_{i<=k} H_i - max_{i<=k} H_i <= entropy_bound; EB-Sampler,
    arXiv 2505.24857. The left side bounds the mutual information that a joint commit ignores.

    Args:
        entropy_bound: gamma in nats, at least 0; published runs use 0.001 to 0.1.
    """

    entropy_bound: float = 0.1

    def __post_init__(self) -> None:
        require(self.entropy_bound >= 0, "entropy_bound", "be at least 0", self.entropy_bound)

    def accept(self, reading: Reading) -> Bool[Tensor, "B L"]:
        """The entropies that come before sum up to the bound at most: in ascending order the maximum is the last."""
        return sum_before(reading.entropy, -reading.entropy, reading.rows) <= self.entropy_bound

    def score(self, reading: Reading) -> Float[Tensor, "B L"]:
        """Certainty: minus the entropy."""
        return -reading.entropy


@final
@dataclass(frozen=True)
class RiskSum(AcceptancePolicy):
    """Commit the most confident positions as long as their risks add up to the bound at most, at least one.

    The longest run in descending order of confidence with sum_{i<=m} (1 - c_i) <= risk_bound: a union bound on the
    probability that the round commits a wrong token.

    Args:
        risk_bound: summed probability, above 0.
    """

    risk_bound: float = 0.1

    def __post_init__(self) -> None:
        require(self.risk_bound > 0, "risk_bound", "be above 0", self.risk_bound)

    def accept(self, reading: Reading) -> Bool[Tensor, "B L"]:
        """The risks up to and with this position sum up to the bound at most."""
        return within_risk(reading, self.risk_bound)
