"""Rules that look at each position alone: commit every one that is sure enough, by confidence, margin or entropy."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, final, get_args

from jaxtyping import Bool, Float, Int
from torch import Tensor

from decoding.policy import Policy, best
from decoding.reading import Reading
from decoding.state import DecodeState, Proposal, Reason


def require(holds: bool, name: str, rule: str, value: object) -> None:
    """Refuse a setting in one sentence."""
    if not holds:
        raise ValueError(f"{name} must {rule}, got {value!r}")


def require_one_of(names: Any, name: str, value: str) -> None:
    """Refuse a setting that is none of the names of a Literal type."""
    require(value in get_args(names), name, f"be one of {', '.join(get_args(names))}", value)


@dataclass(frozen=True)
class AcceptancePolicy(Policy):
    """Commit the accepted positions of the opened blocks, and where there is none the best one."""

    checkable: ClassVar[bool] = True

    @abstractmethod
    def accept(self, reading: Reading) -> Bool[Tensor, "B L"]:
        """Which of the positions read the rule takes."""

    def score(self, reading: Reading) -> Float[Tensor, "B L"]:
        """What the best position has most of."""
        return reading.confidence

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """Commit what the rule accepts, at least one position."""
        accepted = self.accept(reading) & reading.rows
        return Proposal.single(state, reading, at_least_one(accepted, self.score(reading), reading))


def at_least_one(accepted: Bool[Tensor, "B L"], score: Float[Tensor, "B L"], reading: Reading) -> Int[Tensor, "B L"]:
    """The reason of every commit: EXPLOIT where accepted; FORCED at the best position of a row without any."""
    forced = best(score, reading.rows) & ~accepted.any(-1, keepdim=True)
    return accepted * int(Reason.EXPLOIT) + forced * int(Reason.FORCED)


def confident(reading: Reading, threshold: float) -> Bool[Tensor, "B L"]:
    """Positions with c >= threshold."""
    return reading.rows & (reading.confidence >= threshold)


@final
@dataclass(frozen=True)
class Threshold(AcceptancePolicy):
    """Commit every position of the opened blocks whose confidence reaches the threshold, and always the best one.

    A = {i : c_i >= threshold}; Fast-dLLM, arXiv 2505.22618, `threshold`.

    Args:
        threshold: probability in (0, 1].
    """

    threshold: float = 0.9

    def __post_init__(self) -> None:
        require(0 < self.threshold <= 1, "threshold", "lie in (0, 1]", self.threshold)

    def accept(self, reading: Reading) -> Bool[Tensor, "B L"]:
        """c >= threshold."""
        return confident(reading, self.threshold)


@final
@dataclass(frozen=True)
class MarginThreshold(AcceptancePolicy):
    """Commit every position whose two most likely tokens are far enough apart, and always the one with the widest gap.

    A = {i : p1_i - p2_i >= margin}. Accepts whatever c >= (1 + margin) / 2 accepts, and positions whose doubt is spread
    thin.

    Args:
        margin: difference of two probabilities, in (0, 1].
    """

    margin: float = 0.8

    def __post_init__(self) -> None:
        require(0 < self.margin <= 1, "margin", "lie in (0, 1]", self.margin)

    def accept(self, reading: Reading) -> Bool[Tensor, "B L"]:
        """p1 - p2 >= margin."""
        return reading.margin >= self.margin

    def score(self, reading: Reading) -> Float[Tensor, "B L"]:
        """The margin itself."""
        return reading.margin


@final
@dataclass(frozen=True)
class EntropyThreshold(AcceptancePolicy):
    """Commit every position whose entropy is low enough, and always the lowest.

    A = {i : H_i <= entropy_threshold}; what dParallel (arXiv 2509.26488) and d3LLM call `threshold`.

    Args:
        entropy_threshold: nats, at least 0; published runs use 0.45 to 0.5.
    """

    entropy_threshold: float = 0.45

    def __post_init__(self) -> None:
        require(self.entropy_threshold >= 0, "entropy_threshold", "be at least 0", self.entropy_threshold)

    def accept(self, reading: Reading) -> Bool[Tensor, "B L"]:
        """H <= entropy_threshold."""
        return reading.entropy <= self.entropy_threshold

    def score(self, reading: Reading) -> Float[Tensor, "B L"]:
        """Certainty: minus the entropy."""
        return -reading.entropy
