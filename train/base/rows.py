"""Training rows of every task, kept on the device, and the choice of the task of a step."""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import itertools
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError  # of a damaged header of NumPy
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from decoding.files.aside import written_aside
from train.base.corpus import Rows, build, from_file
from train.base.symmetry import SudokuSymmetry, find_cells
from train.base.tokenizer import load
from train.tasks import Split, get
from train.tasks.renumbered.gsm8k_renumbered import RenumberedTask

logger = logging.getLogger(__name__)

SMALL = 4096  # rows that are generated sooner than processes start
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Narrow:
    """Rows that fit fewer columns, cut to them.

    Args:
        share: weight of these batches among the steps, positive.
        width: columns of a row.
        canvas: columns of the answer, at least one EOS included; prompts have at most `width - canvas` tokens.
    """

    share: float
    width: int
    canvas: int

    def __post_init__(self) -> None:
        if self.share <= 0:
            raise ValueError(f"share of narrow must be positive, got {self.share}")
        if not 0 < self.canvas < self.width:
            raise ValueError(f"canvas of narrow must lie between 0 and its width {self.width}, got {self.canvas}")


@dataclass(frozen=True)
class TaskRows:
    """What a run takes from one task.

    Args:
        share: weight of the task among the steps, positive.
        rows: number of training rows to generate, or the most to read from files.
        files: JSONL files with training rows; where none exists the generator is used instead. A renumbered task draws the
            rows of the first one anew, for every split.
        pad_to: width to which rows are left-padded so that tasks share compiled shapes; a multiple of 16 is fast.
        symmetric: a Sudoku: apply a random symmetry to every row drawn.
        narrow: a second stream of the task's shorter rows alone, in fewer columns; the first stream, of all rows, still
            shows how long answers are.
    """

    share: float
    rows: int
    files: tuple[str, ...] = ()
    pad_to: int | None = None
    symmetric: bool = False
    narrow: Narrow | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share < math.inf:
            raise ValueError(f"share must be a finite number above 0, got {self.share}")
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

    def cut(self, narrow: Narrow, *, eos_id: int) -> TaskData:
        """The rows that fit fewer columns, cut to them.

        Raises:
            ValueError: if the task is symmetric or all its prompts have one length, the cut is no narrower, or no row fits.
        """
        if self.symmetry is not None or self.padding is None:
            raise ValueError(f"narrow must be left out of a task whose rows are of one width, got it for {self.name}")
        end = self.tokens.shape[1] - self.canvas + narrow.canvas
        start = end - narrow.width
        if start < 0 or narrow.canvas >= self.canvas:
            whole = f"width {self.tokens.shape[1]} and canvas {self.canvas}"
            raise ValueError(f"narrow of {self.name} must be below {whole}, got {narrow.width} and {narrow.canvas}")
        fits = ((self.tokens[:, end - 1] == eos_id) & (self.padding >= start)).nonzero().flatten()
        if not len(fits):
            raise ValueError(f"narrow of {self.name} must leave rows of {narrow.width} columns, got none")
        tokens, padding = self.tokens[fits, start:end].contiguous(), self.padding[fits] - start
        return dataclasses.replace(self, share=narrow.share, tokens=tokens, padding=padding, canvas=narrow.canvas)

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


def load_rows(name: str, rows: Rows, spec: TaskRows, *, canvas: int, device: torch.device) -> TaskData:
    """Move rows to the device, padded to the width of their spec.

    Args:
        name: the task.
        rows: left-padded token rows and their prompt lengths.
        spec: what the run takes from the task.
        canvas: length of the canvas.
        device: where the rows shall live.

    Returns:
        The data without symmetry.

    Raises:
        ValueError: if the rows are wider than ``pad_to``, or a token does not fit.
    """
    used = int(rows.prompt_length.max()) + canvas
    width = spec.pad_to or used
    if width < used:
        raise ValueError(f"pad_to of {name} must be at least {used}, got {width}")
    if rows.tokens.max() > np.iinfo(np.int16).max:
        raise ValueError(f"token ids of {name} must fit 16 signed bits, got {rows.tokens.max()}")
    ids = torch.from_numpy(np.ascontiguousarray(rows.tokens[:, -used:]).astype(np.int16)).to(device)
    ids = torch.nn.functional.pad(ids, (width - used, 0))
    padding = torch.from_numpy(width - canvas - rows.prompt_length.astype(np.int64)).to(device)
    return TaskData(name, spec.share, ids, padding if bool(padding.any()) else None, canvas)


def load_task(
    name: str,
    spec: TaskRows,
    tokenizer: Path,
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
        tokenizer: folder of the tokenizer; its content, and that of the files read, name the cache entry.
        split: which split to take; files serve the training split only.
        seed: seed of the generator.
        cache: folder of rows made earlier.
        device: where the rows shall live.

    Returns:
        The rows, with the symmetry their spec asks for.
    """
    words = digest(tokenizer / "tokenizer.json")
    redrawn = isinstance(get(name), RenumberedTask)
    present = [path for path in map(Path, spec.files) if path.is_file()] if split == "train" or redrawn else []
    if spec.files and not present:
        logger.warning("%s: none of %s exists, rows are generated instead", name, list(spec.files))
    sources = [digest(path) for path in present] or [f"{seed}"]
    sources = [*sources, f"seed{seed}"] if redrawn and present else sources
    entry = cache / f"{'-'.join([name, split, str(spec.rows), *sources, words])}.npy"
    if not entry.is_file():
        made = (
            _read(name, present, spec.rows, tokenizer)
            if present and not redrawn
            else _generate(name, spec.rows, tokenizer, split=split, seed=seed, source=present[0] if present else None)
        )
        _store(made, entry)
    rows = _kept(entry)
    data = load_rows(name, rows, spec, canvas=get(name).gen_length, device=device)
    if not spec.symmetric:
        return data
    ids = load(tokenizer).get_vocab()
    digits = torch.tensor([ids[digit] for digit in "123456789"], device=device)
    cells = find_cells(data.tokens[:1000].long(), canvas=data.canvas, digits=digits, blank=ids["0"])
    return dataclasses.replace(data, symmetry=SudokuSymmetry(cells, digits, len(ids)))


def digest(file: Path) -> str:
    """A short name of what is in a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:16]


def _read(name: str, files: Sequence[Path], count: int, tokenizer: Path) -> Rows:
    parts = [from_file(get(name), path, count, tokenizer=tokenizer) for path in files]
    width = max(part.tokens.shape[1] for part in parts)
    tokens = np.concatenate([np.pad(part.tokens, ((0, 0), (width - part.tokens.shape[1], 0))) for part in parts])
    lengths = np.concatenate([part.prompt_length for part in parts])
    return Rows(tokens[:count], lengths[:count])


def _generate(name: str, count: int, tokenizer: Path, *, split: Split, seed: int, source: Path | None) -> Rows:
    workers = (os.cpu_count() or 1) if count > SMALL else 1
    return build(name, count, seed=seed, split=split, workers=workers, tokenizer=tokenizer, source=source)


def _kept(entry: Path) -> Rows:
    """The rows of a cache entry.

    Raises:
        ValueError: naming the file, if it holds anything else.
    """
    try:
        stored = np.load(entry)
        sound = stored.ndim == 2 and stored.shape[1] > 1 and stored.dtype == np.uint16
        if not sound or not bool((0 < stored[:, -1]).all() and (stored[:, -1] < stored.shape[1]).all()):
            raise ValueError(f"{stored.dtype} {stored.shape}")
    except (ValueError, OSError, EOFError, MemoryError, SyntaxError, TypeError, AttributeError, TokenError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{entry} must hold rows made earlier, got {why}: remove it, and they are made again"
        ) from error
    return Rows(stored[:, :-1], stored[:, -1].astype(np.int64))


def _store(rows: Rows, entry: Path) -> None:
    """Write rows aside and rename them; the last column is the prompt length."""
    with written_aside(entry) as aside, aside.open("wb") as file:
        np.save(file, np.column_stack([rows.tokens, rows.prompt_length.astype(np.uint16)]))
