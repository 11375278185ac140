"""What is right where nobody knows the answers: the texts of the rule alone at its most careful bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from decoding.api import generate
from decoding.provenance import write_json
from models.checkpoints.json_files import read_object
from models.denoiser import Denoiser


@final
class CarefulTexts:
    """What the rule alone writes for some prompts: decoded in their order as far as it is asked for, and kept in a file.

    Args:
        denoiser: the base.
        prompts: all different.
        how: bound of the rule, and the canvas.
        file: that keeps the texts; one with other prompts is begun anew.
        batch_size: prompts in one decode.
    """

    def __init__(
        self, denoiser: Denoiser, prompts: Sequence[str], how: Mapping[str, Any], file: Path, *, batch_size: int
    ) -> None:
        self.denoiser, self.prompts, self.how = denoiser, list(prompts), dict(how)
        self.file, self.batch_size = file, batch_size
        self.place = {prompt: place for place, prompt in enumerate(self.prompts)}
        self.texts = kept_texts(file, self.prompts)

    def of(self, prompt: str) -> str:
        """The text for one of the prompts; it and what comes before it are decoded, in batches, unless they were."""
        while len(self.texts) <= self.place[prompt]:
            more = self.prompts[len(self.texts) : len(self.texts) + self.batch_size]
            self.texts += generate(self.denoiser, more, "risk-sum", **self.how).text
            write_json(self.file, dict(zip(self.prompts, self.texts, strict=False)))
        return self.texts[self.place[prompt]]


def kept_texts(file: Path, prompts: Sequence[str]) -> list[str]:
    """The texts that a file keeps for the first so many prompts; none where it is of other prompts."""
    kept = read_object(file) if file.exists() else {}
    same = kept.keys() == set(prompts[: len(kept)]) and all(isinstance(text, str) for text in kept.values())
    return [kept[prompt] for prompt in prompts[: len(kept)]] if same else []
