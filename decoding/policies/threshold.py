"""Rules that look at each position alone: commit every one that is sure enough, by confidence, margin or entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from jaxtyping import Bool, Float
from torch import Tensor

from decoding.policies.rules import AcceptancePolicy, confident, require
from decoding.reading import Reading


@final
@dataclass(frozen=True)
class Threshold(AcceptancePolicy):
    """Commit every position of the opened blocks whose confidence reaches the threshold, at least the best: Fast-dLLM.

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
        """The margin, as its log-odds."""
        return reading.margin_odds


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
