"""Training rows of every task, kept on the device, and the choice of the task of a step."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from train.symmetry import SudokuSymmetry, find_cells

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class TaskRows:
    """What a run takes from one task.

    Args:
        share: weight of the task among the steps, positive.
        rows: number of training rows to generate, or the most to read from files.
        files: JSONL files with training rows; where none exists the generator is used instead.
        pad_to: width to which rows are left-padded so that tasks share compiled shapes; a multiple of 16 is fast.
        symmetric: a Sudoku: apply a random symmetry to every row drawn.
    """

    share: float
    rows: int
    files: tuple[str, ...] = ()
    pad_to: int | None = None
    symmetric: bool = False

    def __post_init__(self) -> None:
        if self.share <= 0:
            raise ValueError(f"share must be positive, got {self.share}")
        if self.rows < 1:
            raise ValueError(f"rows must be at least 1, got {self.rows}")


@dataclass(frozen=True)
class Batch:
    """Clean rows of one task: tokens ``[B, L]`` int64 and, where prompts differ in length, left padding ``[B]``."""

    tokens: Tensor
    padding: Tensor | None
    canvas: int


@dataclass(frozen=True)
class TaskData:
    """Rows of one task on the device.

    Args:
        name: the task.
        share: its weight among the steps.
        tokens: ``[N, L]`` int16, left-padded prompt then canvas.
        padding: ``[N]`` padded columns of each row, or None if no row has any.
        canvas: length of the canvas.
        symmetry: applied to every batch, if any.
    """

    name: str
    share: float
    tokens: Tensor
    padding: Tensor | None
    canvas: int
    symmetry: SudokuSymmetry | None = None

    def rows_for(self, token_budget: int) -> int:
        """Number of rows that hold about this many tokens, a multiple of 8 where possible."""
        rows = max(1, token_budget // self.tokens.shape[1])
        return rows - rows % 8 if rows >= 8 else rows

    def draw(self, rows: int, generator: torch.Generator) -> Batch:
        """Draw rows with replacement; same generator state, same batch."""
        index = torch.randint(len(self.tokens), (rows,), generator=generator, device=self.tokens.device)
        tokens = self.tokens[index].long()
        if self.symmetry is not None:
            tokens = self.symmetry(tokens, generator)
        return Batch(tokens, None if self.padding is None else self.padding[index], self.canvas)

    def take(self, rows: int) -> Batch:
        """Take the first rows as they are."""
        return Batch(self.tokens[:rows].long(), None if self.padding is None else self.padding[:rows], self.canvas)


def draw_task(step: int, shares: Sequence[float], *, seed: int) -> int:
    """Choose the task of a step: ``u = frac(offset(seed) + step * golden ratio)`` against the cumulative shares.

    Over any stretch of n steps each task gets its share to within a few steps, and no state is kept.

    Args:
        step: number of the step.
        shares: positive weights.
        seed: shifts the sequence.

    Returns:
        Index of the task.
    """
    point = (seed * math.sqrt(2) + step * GOLDEN) % 1.0
    edges = list(itertools.accumulate(shares))
    return min(bisect.bisect_right(edges, point * edges[-1]), len(shares) - 1)


def place(
    name: str, tokens: np.ndarray, prompt_length: np.ndarray, spec: TaskRows, *, canvas: int, device: torch.device
) -> TaskData:
    """Move rows to the device, padded to the width of their spec.

    Args:
        name: the task.
        tokens: ``[N, W]`` left-padded rows.
        prompt_length: ``[N]`` tokens of each prompt.
        spec: what the run takes from the task.
        canvas: length of the canvas.
        device: where the rows shall live.

    Returns:
        The data without symmetry.

    Raises:
        ValueError: if the rows are wider than ``pad_to``, or a token does not fit.
    """
    used = int(prompt_length.max()) + canvas
    width = spec.pad_to or used
    if width < used:
        raise ValueError(f"pad_to of {name} must be at least {used}, got {width}")
    if tokens.max() > np.iinfo(np.int16).max:
        raise ValueError(f"token ids of {name} must fit 16 signed bits, got {tokens.max()}")
    ids = torch.from_numpy(np.ascontiguousarray(tokens[:, -used:]).astype(np.int16)).to(device)
    ids = torch.nn.functional.pad(ids, (width - used, 0))
    padding = torch.from_numpy(width - canvas - prompt_length.astype(np.int64)).to(device)
    return TaskData(name, spec.share, ids, padding if bool(padding.any()) else None, canvas)


def load_task(
    name: str,
    spec: TaskRows,
    tokenizer: PreTrainedTokenizerBase,
    *,
    split: Literal["train", "dev"],
    seed: int,
    cache: Path,
    device: torch.device,
) -> TaskData:
    """Read or generate the rows of a task and place them on the device.

    Args:
        name: the task.
        spec: what the run takes from it.
        tokenizer: the shipped tokenizer, for the ids of digits; its file names the cache entry.
        split: which split to take; files serve the training split only.
        seed: seed of the generator.
        cache: folder of generated rows.
        device: where the rows shall live.

    Returns:
        The rows, with the symmetry their spec asks for.
    """
    from train import tasks

    tokens, prompt_length = _read_files(name, spec) if split == "train" else (None, None)
    if tokens is None or prompt_length is None:
        tokens, prompt_length = _generate(name, spec.rows, tokenizer, split=split, seed=seed, cache=cache)
    data = place(name, tokens, prompt_length, spec, canvas=tasks.get(name).gen_length, device=device)
    if not spec.symmetric:
        return data
    digits = torch.tensor(tokenizer.convert_tokens_to_ids(list("123456789")), device=device)
    blank = tokenizer.get_vocab()["0"]
    cells = find_cells(data.tokens[:1000].long(), canvas=data.canvas, digits=digits, blank=blank)
    symmetry = SudokuSymmetry(cells, digits, len(tokenizer))
    return TaskData(name, spec.share, data.tokens, data.padding, data.canvas, symmetry)


def _read_files(name: str, spec: TaskRows) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    from train import corpus

    present = [path for path in spec.files if Path(path).is_file()]
    if spec.files and not present:
        logger.warning("%s: none of %s exists, rows are generated instead", name, list(spec.files))
    if not present:
        return None, None
    parts = [corpus.from_file(name, path, spec.rows) for path in present]
    width = max(tokens.shape[1] for tokens, _ in parts)
    tokens = np.concatenate([np.pad(t, ((0, 0), (width - t.shape[1], 0))) for t, _ in parts])
    return tokens[: spec.rows], np.concatenate([lengths for _, lengths in parts])[: spec.rows]


def _generate(
    name: str, rows: int, tokenizer: PreTrainedTokenizerBase, *, split: str, seed: int, cache: Path
) -> tuple[np.ndarray, np.ndarray]:
    from train import corpus

    words = hashlib.blake2b(repr(sorted(tokenizer.get_vocab().items())).encode(), digest_size=4).hexdigest()
    path = cache / f"{name}-{split}-{rows}-{seed}-{words}.npy"
    if not path.is_file():
        tokens, prompt_length = corpus.build(name, rows, seed=seed, split=split)
        cache.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(path.name + ".part")
        with aside.open("wb") as file:
            np.save(file, np.column_stack([tokens, prompt_length.astype(np.uint16)]))
        aside.replace(path)
    stored = np.load(path)
    return stored[:, :-1], stored[:, -1]
