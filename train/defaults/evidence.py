"""How much of a figure there is to rest on: from how many positions or prompts it comes, and its interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

ENOUGH = 200  # positions or prompts under which nothing is decided by a figure
Z = 1.96  # of a 95 % interval
ONE_SIDED = 1.645  # of a bound that holds with 95 % confidence


def worded(found: Mapping[str, float] | None, n: int, *, of: str = "positions", digits: int = 3) -> str:
    """A figure with its interval and n, or that there are too few to say.

    Args:
        found: estimate, low and high; None where there is no figure.
        n: what it comes from.
        of: what is counted.
        digits: behind the point.
    """
    if n < ENOUGH or found is None:
        return f"too few ({n:,} {of})"
    middle, low, high = (f"{found[name]:.{digits}f}" for name in ("estimate", "low", "high"))
    return f"{middle} [{low}, {high}] ({n:,} {of})"


@dataclass(frozen=True)
class Paired:
    """How much more often one decoder is right than another on the same prompts, with a 95 % interval.

    Attributes:
        estimate: difference of the shares that are right.
        low, high: the interval of Agresti and Min (2005), which is not empty where no prompt differs.
        n: prompts.
    """

    estimate: float
    low: float
    high: float
    n: int

    @property
    def least(self) -> float:
        """What the difference is over with 95 % confidence, by the same interval."""
        middle = (self.low + self.high) / 2
        return middle - ONE_SIDED / Z * (middle - self.low)

    def drawn_to_none(self, spread: float) -> Paired:
        """The difference where it is known beforehand to be near 0: normal around 0 with this standard deviation.

        estimate w d, standard error spread sqrt(1 - w), w = spread^2 / (spread^2 + s^2), s that of the prompts alone.

        Args:
            spread: of what differences there are of this kind, above 0.
        """
        error = (self.high - self.low) / (2 * Z)
        weight = spread**2 / (spread**2 + error**2)
        middle, reach = weight * self.estimate, Z * spread * sqrt(1 - weight)
        return Paired(middle, middle - reach, middle + reach, self.n)

    @staticmethod
    def of(won: int, lost: int, n: int) -> Paired:
        """From the prompts that only one of the two, or only the other, gets right.

        d = (w - l) / m with half a prompt added to both w and l, m = n + 2; d -+ z sqrt((w + l) / m - d^2) / sqrt(m).
        """
        m = n + 2
        middle = (won - lost) / m
        reach = Z * sqrt(max(0.0, (won + lost + 1) / m - middle**2) / m)
        return Paired((won - lost) / n, middle - reach, middle + reach, n)


def summary(per_task: Mapping[str, Any]) -> str:
    """The figures that matter, each with its interval and how many positions or states it comes from; a line each."""
    lines = []
    for task, one in per_task.items():
        risk, choice = one["risk"], one["choice"]
        n = risk["positions"]
        lines.append(f"{task}: AUROC of the risk {worded(risk.get('auroc_interval'), n)}")
        if n >= ENOUGH:
            lines[-1] += f", of the confidence {risk['auroc_confidence']:.3f}"
            lines.append(f"  log-loss skill over the confidence {worded(risk['log_loss_skill'], n)}")
        found = worded(choice.get("regret"), choice["states"], of="states", digits=2)
        lines.append(f"  regret of the choice, in positions: {found}")
    return "\n".join(lines)
