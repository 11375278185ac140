"""What a scoring head is made of; imports nothing heavy, so that a command judges it first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from models.complaints import shown

Variant = Literal["linear", "features", "hidden", "lora", "fork"]
VARIANTS: tuple[Variant, ...] = ("linear", "features", "hidden", "lora", "fork")


MOST = 1 << 16
"""No width, rank or reach of a head is larger; a config that says so is damaged."""


def require_whole(name: str, value: object, *, least: int) -> None:
    """Refuse what is no whole number of at least `least` and at most MOST."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    if value > MOST:
        raise ValueError(f"{name} must be at most {MOST}, got {value}")


@dataclass(frozen=True)
class HeadConfig:
    """What a head is made of.

    Args:
        variant: `linear` on the features; `features` two small attention layers over the rows; `hidden` the re-run blocks
            without LoRA; `lora` the side-stream with LoRA; `fork` the re-run blocks as trainable copies, a ceiling to measure by.
        feature_names: names and order of the features it was fitted on.
        blocks: K, how many of the last base blocks the side-stream re-runs.
        rank, alpha, dropout: of the LoRA.
        width: of the read-out and of the feature layers.
        pairs: width of the conflict output, which tells candidates that change each other; 0 for none. The name is
            that of saved heads.
        reach: places apart up to which the conflict output tells how two positions lie to each other; 0 for not at all.
        trust: part of the head's correction of the confidence that held-out states bear out, in [0, 1]; 0 leaves 1 - c.
        target: what the second output was fitted to: the gain in positions, or a score that only ranks (eq7, worth).
        threshold: confidence from which a position counts as crossed, and as about to be committed.
        base: fingerprint of the base the head is bound to; "" for heads that read features only, which go on any.
        fitted_on: fingerprint of the base whose traces it was fitted on; information, binds nothing.
    """

    variant: Variant
    feature_names: tuple[str, ...]
    blocks: int = 1
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    width: int = 128
    threshold: float = 0.9
    base: str = ""
    fitted_on: str = ""
    pairs: int = 0
    reach: int = 0
    target: str = "gain"
    trust: float = 1.0

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {shown(self.variant)}")
        for name in ("blocks", "rank", "alpha", "width"):
            require_whole(name, getattr(self, name), least=1)
        for name in ("pairs", "reach"):
            require_whole(name, getattr(self, name), least=0)
        if self.width % 4:
            raise ValueError(f"width must be a multiple of 4, got {self.width}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")
        if not 0 <= self.trust <= 1:
            raise ValueError(f"trust must lie in [0, 1], got {self.trust}")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must lie in (0, 1), got {self.threshold}")

    @property
    def reads_hidden(self) -> bool:
        """Whether the head needs the base's hidden states."""
        return self.variant in ("hidden", "lora", "fork")
