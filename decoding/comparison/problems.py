"""The prompts of one task, as far as a comparison of decoders needs to know them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from models.complaints import shown

Split = Literal["dev", "test"]
Check = Callable[[str, str], bool]  # (prompt, text up to the first EOS) -> right


@dataclass(frozen=True)
class Problems:
    """The prompts of one task, the same for every arm.

    Args:
        task: its name.
        dev: prompts that choose dials and settings.
        test: prompts that are reported and choose nothing; none where nothing but dev prompts is asked for.
        gen_length, block_length: of the canvas.
        references: prompt -> the only right answer, where there is one.
        temperature: of the draws; 0 takes the most likely token.
        use_cache: none, prefix or dual.
        checked: whether a checker judges the answers; else a text is right that is also the reference's.
        judge: what says whether an answer is right, as a hash (`judge_of`): figures judged by another are not gone on with.
    """

    task: str
    dev: tuple[str, ...]
    test: tuple[str, ...]
    gen_length: int
    block_length: int
    references: Mapping[str, str] = field(default_factory=dict)
    temperature: float = 0.0
    use_cache: str = "none"
    judge: str = ""
    checked: bool = True

    @property
    def fingerprint(self) -> str:
        """Hash of the prompts and their references: figures on others are not gone on with."""
        return judge_of(self.dev, self.test, dict(self.references))

    def __post_init__(self) -> None:
        self.require_prompts("dev")
        shared = set(self.dev) & set(self.test)
        if shared:
            raise ValueError(
                f"dev and test prompts of task {self.task} must differ, got {shown(sorted(shared)[0])} in both"
            )

    def require_prompts(self, split: Split) -> None:
        """Refuse a split without prompts.

        Raises:
            ValueError: in one sentence.
        """
        if not self.split(split):
            raise ValueError(f"{split} prompts of task {self.task} must be at least one, got none")

    def split(self, split: Split) -> tuple[str, ...]:
        """The prompts of a split."""
        return self.dev if split == "dev" else self.test

    def first(self, split: Split, count: int) -> Problems:
        """The same with the first prompts of a split alone."""
        return replace(self, dev=self.dev[:count]) if split == "dev" else replace(self, test=self.test[:count])


def judge_of(*parts: object) -> str:
    """Hash of what answers are compared with: the references of prompts, or how they were made."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class CheckedProblems:
    """The prompts of one task, and the checker that says whether a text answers one."""

    problems: Problems
    check: Check
