"""The prompts of one task, as far as a comparison of decoders needs to know them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Split = Literal["dev", "test"]
Check = Callable[[str, str], bool]  # (prompt, text up to the first EOS) -> right


@dataclass(frozen=True)
class Problems:
    """The prompts of one task, the same for every arm.

    Args:
        task: its name.
        dev: prompts that choose dials and settings.
        test: prompts that are reported and choose nothing.
        gen_length, block_length: of the canvas.
        references: prompt -> the only right answer, where there is one.
    """

    task: str
    dev: tuple[str, ...]
    test: tuple[str, ...]
    gen_length: int
    block_length: int
    references: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("dev", "test"):
            if not getattr(self, name):
                raise ValueError(f"{name} prompts of task {self.task} must be at least one, got none")
        shared = set(self.dev) & set(self.test)
        if shared:
            raise ValueError(f"dev and test prompts of task {self.task} must differ, got {sorted(shared)[0]!r} in both")

    def split(self, split: Split) -> tuple[str, ...]:
        """The prompts of a split."""
        return self.dev if split == "dev" else self.test
