"""One stored table of outcomes: every prompt of a task through every decoder, from which choices of a dial are replayed."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoding.files.aside import written_aside
from decoding.names import DIALS
from models.checkpoints.json_files import parse
from models.complaints import shown

BROKEN = (zipfile.BadZipFile, zlib.error, SyntaxError, AttributeError)  # what numpy lets through of a damaged file
MISSING = -1
COUNTED = ("right", "rounds", "sequence_forwards", "looks", "drafts", "drafts_true")
"""Columns of a run that are kept, whole numbers."""
ANSWER = "answer"
"""Which of the texts of a prompt it is: equal numbers on one prompt are equal texts."""

Numbers = NDArray[np.int32]


@dataclass(frozen=True)
class StoredCell:
    """A decoder with all its settings.

    Attributes:
        arm: name.
        kind: headless or learned.
        policy: name of the policy.
        dial: the setting that the arm sweeps, empty where it has none.
        value: of the dial.
        settings: all of them, the dial among them.
    """

    arm: str
    kind: str
    policy: str
    dial: str
    value: float | None
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class OutcomeTable:
    """Every decoder on the prompts of one task; `MISSING` where a decoder did not run.

    Attributes:
        task: name.
        cells: the decoders, [S].
        columns: name -> [S, n], those of COUNTED and ANSWER.
        about: what was run: model, seed, number format, device.
    """

    task: str
    cells: tuple[StoredCell, ...]
    columns: Mapping[str, Numbers]
    about: Mapping[str, Any]

    @property
    def prompts(self) -> int:
        """n."""
        return int(self.columns["right"].shape[1])

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms, each once."""
        return tuple(dict.fromkeys(cell.arm for cell in self.cells))

    def rows(self, arm: str) -> list[int]:
        """Indices of an arm's cells from the careful end of its dial.

        Raises:
            ValueError: for an arm that is not in the table.
        """
        found = [index for index, cell in enumerate(self.cells) if cell.arm == arm]
        if not found:
            raise ValueError(f"arm must be among {', '.join(self.arms)}, got {shown(arm)}")
        dial = self.cells[found[0]].dial
        values = {index: float(self.cells[index].value or 0) for index in found}
        high = dial in DIALS and DIALS[dial].careful_is_high
        return sorted(found, key=lambda index: -values[index] if high else values[index])

    def complete(self, rows: Sequence[int]) -> NDArray[np.int64]:
        """Numbers of the prompts on which all these cells have run."""
        there: NDArray[np.int64] = np.flatnonzero((self.columns["right"][list(rows)] != MISSING).all(0))
        return there

    def save(self, path: Path) -> None:
        """Write it aside and rename it, compressed."""
        head = json.dumps([self.task, [asdict(cell) for cell in self.cells], dict(self.about)])
        narrow = {name: _narrow(values) for name, values in self.columns.items()}
        with written_aside(path) as aside, aside.open("wb") as file:
            np.savez_compressed(file, head=np.frombuffer(head.encode(), np.uint8), **narrow)  # type: ignore[arg-type]

    @staticmethod
    def load(path: Path) -> OutcomeTable:
        """Read a table.

        Raises:
            ValueError: for another file.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                task, cells, about = parse(bytes(file["head"]).decode("utf-8"))
                columns = {name: file[name].astype(np.int32) for name in (*COUNTED, ANSWER)}
            shapes = {values.shape for values in columns.values()}
            if len(shapes) != 1 or len(next(iter(shapes))) != 2 or {len(cells)} != {shape[0] for shape in shapes}:
                raise ValueError(f"columns of {shapes} for {len(cells)} decoders")
            return OutcomeTable(task, tuple(StoredCell(**cell) for cell in cells), columns, about)
        except (OSError, EOFError, ValueError, KeyError, TypeError, NotImplementedError, *BROKEN) as error:
            reason = " ".join(f"{type(error).__name__} {error}".split())
            raise ValueError(
                f"outcomes must be a file of python -m train.outcomes, got {path} ({reason[:200]})"
            ) from error

    def joined(self, other: OutcomeTable) -> OutcomeTable:
        """Cells of both, over the same prompts; a cell of both is that of this table where it ran.

        Texts are numbered within a table, so the other's are left out.

        Raises:
            ValueError: for another task or other prompts.
        """
        mine, theirs = ((t.task, t.prompts, t.about.get("prompts")) for t in (self, other))
        if mine != theirs:
            raise ValueError(f"tables must be of the same prompts, got {mine} and {theirs}")
        known = {_identity(cell): index for index, cell in enumerate(self.cells)}
        columns = {name: values.copy() for name, values in self.columns.items()}
        theirs_too = {**other.columns, ANSWER: np.full_like(other.columns[ANSWER], MISSING)}
        new = [index for index, cell in enumerate(other.cells) if _identity(cell) not in known]
        for index, cell in enumerate(other.cells):
            if _identity(cell) in known:
                row = known[_identity(cell)]
                lacks = columns["right"][row] == MISSING
                for name, values in columns.items():
                    values[row, lacks] = theirs_too[name][index, lacks]
        whole = {name: np.vstack([values, theirs_too[name][new]]) for name, values in columns.items()}
        return replace(self, cells=(*self.cells, *(other.cells[index] for index in new)), columns=whole)


def _identity(cell: StoredCell) -> str:
    return json.dumps([cell.arm, cell.policy, dict(cell.settings)], sort_keys=True)


def _narrow(values: Numbers) -> NDArray[Any]:
    """The same numbers in as few bits as they need."""
    most = int(values.max(initial=0))
    return values.astype(np.int8 if most < 128 else np.int16 if most < 32768 else np.int32)


def number_texts(answers: NDArray[np.float64]) -> Numbers:
    """Names of texts [S, n] as small numbers, 0 the most careful decoder's own, prompt by prompt; MISSING where NaN.

    Args:
        answers: a number that names a text, NaN where none was made.
    """
    numbers = np.full(answers.shape, MISSING, np.int32)
    for prompt in range(answers.shape[1]):
        known: dict[float, int] = {}
        for cell, answer in enumerate(answers[:, prompt]):
            if not np.isnan(answer):
                numbers[cell, prompt] = known.setdefault(float(answer), len(known))
    return numbers
