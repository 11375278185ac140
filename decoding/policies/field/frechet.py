"""Fast-dLLM++: the Fréchet bound on a joint commit, taken over the whole profile of confidences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from jaxtyping import Bool
from torch import Tensor

from decoding.policies.bounds import prefix_sum
from decoding.policies.rules import AcceptancePolicy, require
from decoding.reading import Reading


@final
@dataclass(frozen=True)
class FrechetProfile(AcceptancePolicy):
    """Commit the longest run whose joint probability surely beats any rival: Fréchet profile decoding, arXiv 2606.02955.

    In descending order of confidence, with L_m = sum_{i<=m} c_i - (m - 1) the least probability that all m candidates hold, and
    U_m = 1 - c_(m) the largest that another choice can have: the largest m with L_m - U_m > frechet_margin, at least one. That is

        sum_{i<=m} (1 - c_i) + (1 - c_(m)) < 1 - frechet_margin,

    the rule of `risk-sum` with its last risk counted twice, and with equal confidences that of `factor` at 1.

    Args:
        frechet_margin: probability in [0, 1), larger is more careful; .02 in the published runs.
    """

    frechet_margin: float = 0.02

    def __post_init__(self) -> None:
        require(0 <= self.frechet_margin < 1, "frechet_margin", "lie in [0, 1)", self.frechet_margin)

    def accept(self, reading: Reading) -> Bool[Tensor, "B L"]:
        """The leading run whose summed risk, the last one twice, stays under the bound."""
        risk = reading.log_risk.exp()
        return prefix_sum(risk, -reading.log_risk, reading.rows) + risk < 1 - self.frechet_margin
