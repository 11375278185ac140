"""What nearly all policies share: refusing a setting, the confident positions, at least one commit a round."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

from jaxtyping import Bool, Float, Int
from torch import Tensor

from decoding.policy import Policy, best
from decoding.reading import Reading
from decoding.state import DecodeState, Proposal, Reason
from models.complaints import shown


def require(holds: bool, name: str, rule: str, value: object) -> None:
    """Refuse a setting in one sentence.

    Args:
        holds: whether the setting obeys the rule.
        name: of the setting.
        rule: what it must do, as in "lie in (0, 1]".
        value: what it got.

    Raises:
        ValueError: unless it holds.
    """
    if not holds:
        raise ValueError(f"{name} must {rule}, got {shown(value)}")


def require_one_of(names: Any, name: str, value: str) -> None:
    """Refuse a setting that is none of the names of a Literal type."""
    require(value in get_args(names), name, f"be one of {', '.join(get_args(names))}", value)


def at_least_one(accepted: Bool[Tensor, "B L"], score: Float[Tensor, "B L"], reading: Reading) -> Int[Tensor, "B L"]:
    """The reason of every commit: EXPLOIT where accepted; FORCED at the best position of a row without any."""
    forced = best(score, reading.rows) & ~accepted.any(-1, keepdim=True)
    return accepted * int(Reason.EXPLOIT) + forced * int(Reason.FORCED)


def confident(reading: Reading, threshold: float) -> Bool[Tensor, "B L"]:
    """Positions with c >= threshold."""
    return reading.rows & (reading.confidence >= threshold)


@dataclass(frozen=True)
class WrappingPolicy(Policy):
    """Changes what another rule proposes; blocks open as that rule has them.

    Args:
        rule: the other rule.
    """

    rule: Policy

    @property
    def step_budget(self) -> int | None:
        """That of the rule."""
        return self.rule.step_budget

    @property
    def initial_blocks(self) -> int:
        """Those of the rule."""
        return self.rule.initial_blocks

    def check_blocks(self, num_blocks: int) -> None:
        """What the rule fits."""
        self.rule.check_blocks(num_blocks)


@dataclass(frozen=True)
class AcceptancePolicy(Policy):
    """Commit the accepted positions of the opened blocks, and where there is none the best one."""

    checkable: ClassVar[bool] = True

    @property
    def fused(self) -> bool:
        """True: `accept` and `score` are to be tensor operations alone; a subclass whose are not returns False."""
        return True

    @abstractmethod
    def accept(self, reading: Reading) -> Bool[Tensor, "B L"]:
        """Which of the positions read the rule takes."""

    def score(self, reading: Reading) -> Float[Tensor, "B L"]:
        """What the best position has most of: the confidence, as its log-odds."""
        return reading.log_odds

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """Commit what the rule accepts, at least one position."""
        accepted = self.accept(reading) & reading.rows
        return Proposal.single(state, reading, at_least_one(accepted, self.score(reading), reading))
