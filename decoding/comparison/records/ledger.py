"""Every figure of every run, a line of JSON for each (split, cell, prompt), in a file that a later call goes on with."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from decoding.comparison.arms import Cell
from decoding.comparison.curves import Array
from decoding.comparison.problems import Split
from models.checkpoints.json_files import parse, whole_lines
from models.complaints import shown

COLUMNS = (
    "right",
    "rounds",
    "sequence_forwards",
    "token_positions",
    "new_tokens",
    "bits",
    "explored",  # rounds with more than one canvas
    "looks",  # forwards foretold by the cascade
    "drafts",  # foretold commits that a forward has checked
    "drafts_true",  # of those, the ones that came true
    "idle",  # rounds in which the rule accepted nothing
    "commits",
    "unforced",  # commits that the rule accepted
    "clean",  # of those, made from states without a wrong token; -1 without a reference
    "wrong",  # of those, wrong
    "seconds",  # of the chunk, shared equally
    "answer",  # a number that names the text up to EOS
)

LARGEST = sys.float_info.max
LEAST = {  # of a column; of all others 0
    "clean": -1,
    "wrong": -1,
    "bits": -1e-3,  # of a token drawn against all odds; rounding may leave a little less than none
}
MOST = {"right": 1}  # of a column; of all others LARGEST


class ForeignLine(ValueError):
    """A line of a ledger that is not of this comparison, or there twice."""


class OtherSettings(ValueError):
    """A ledger whose header is not that of this comparison."""


class Ledger:
    """Every figure of every run, a line of JSON for each (split, cell, prompt), in a file that a later call goes on with.

    Nothing is written before the first lines are added.

    Attributes:
        texts: what this process has decoded: (split, cell) -> number of a prompt -> its text.
        agree_with: key of a cell; where there is no checker, a text is right that is also that cell's.

    Args:
        path: the file; None keeps everything in memory.
        header: what all lines share; a file with another header is refused.
        sizes: split -> its number of prompts; a line of any other prompt is refused.

    Raises:
        ValueError: if the file belongs to other settings, or holds a line that cannot be read, is foreign or is there twice.
    """

    def __init__(
        self, path: Path | None, header: Mapping[str, object], *, sizes: Mapping[str, int] | None = None
    ) -> None:
        self.path, self.header, self.sizes, self.whole = path, dict(header), sizes, 0
        self.lines: dict[tuple[str, str], dict[int, list[float]]] = {}
        self.texts: dict[tuple[str, str], dict[int, str]] = {}
        self.agree_with: str | None = None
        if path is not None and path.exists():
            self._resume(path)

    def _resume(self, path: Path) -> None:
        lines = whole_lines(path)
        for number, line in enumerate((one.decode("utf-8", "replace") for one in lines), 1):
            try:
                record = parse(line, finite=False)  # what is no number is named by its column
                if number == 1:
                    self._agree(path, record)
                else:
                    self._keep(record["split"], record["cell"], record["prompt"], [record[name] for name in COLUMNS])
            except ForeignLine as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
            except OtherSettings:
                raise
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                what = "the header" if number == 1 else "a line"
                raise ValueError(f"{path}, line {number} must be {what} of a comparison, got {shown(line)}") from error
        self.whole = sum(len(line) + 1 for line in lines)

    def _agree(self, path: Path, settings: Mapping[str, object]) -> None:
        if not settings.keys() & self.header.keys():
            raise ForeignLine(f"a comparison must begin with its header, got {', '.join(settings) or 'an empty line'}")
        for name, value in self.header.items():
            if settings.get(name) != json.loads(json.dumps(value)):
                raise OtherSettings(
                    f"{name} must be {shown(settings.get(name))} to go on with {path}, got {shown(value)}: choose another --out"
                )

    def _keep(self, split: str, cell: str, prompt: object, values: Sequence[object]) -> None:
        size = None if self.sizes is None else self.sizes.get(split, 0)
        if (
            not isinstance(prompt, int)
            or isinstance(prompt, bool)
            or prompt < 0
            or (size is not None and prompt >= size)
        ):
            raise ForeignLine(f"prompt must be one of the {size} of split {split}, got {shown(prompt)}")
        found = [_number(name, value) for name, value in zip(COLUMNS, values, strict=True)]
        kept = self.lines.setdefault((split, cell), {})
        if prompt in kept:
            raise ForeignLine(f"prompt {prompt} of cell {cell} must be there once in split {split}, got it again")
        kept[prompt] = found

    def has(self, split: Split, cell: Cell, prompts: Sequence[int]) -> bool:
        """Whether all these prompts are there."""
        kept = self.lines.get((split, cell.key), {})
        return all(prompt in kept for prompt in prompts)

    def add(self, split: Split, cell: Cell, prompts: Sequence[int], table: Array) -> list[str]:
        """Write the lines of one chunk at once, and return them; those that a killed run left of it stay as they are.

        Args:
            split: dev or test.
            cell: what ran.
            prompts: their numbers within the split.
            table: [prompts, columns], in the order of COLUMNS.
        """
        lines, known = [], set(self.lines.get((split, cell.key), {}))
        for prompt, values in zip(prompts, table.tolist(), strict=True):
            if prompt in known:
                continue
            self._keep(split, cell.key, prompt, values)
            names = {"split": split, "arm": cell.arm, "dial": cell.dial, "cell": cell.key, "prompt": prompt}
            lines.append(json.dumps(names | dict(zip(COLUMNS, values, strict=True))) + "\n")
        if self.path is not None:
            self._append("".join(lines))
        return lines

    def aside(self, rank: int) -> Ledger:
        """A new ledger for one process among several, in a file beside this one's, which `take_in` reads."""
        path = None if self.path is None else self.path.with_name(f"{self.path.name}.rank-{rank}")
        return Ledger(path, self.header, sizes=self.sizes)

    def left_aside(self) -> list[Path]:
        """Files of processes that were cut off."""
        return [] if self.path is None else sorted(self.path.parent.glob(f"{self.path.name}.rank-*"))

    def take_in(self, lines: Sequence[str], *, write: bool) -> None:
        """Keep lines of other processes that are not there yet, and write them where one process does so for all."""
        new = []
        for line in lines:
            record = json.loads(line)
            split, cell, prompt = (record[name] for name in ("split", "cell", "prompt"))
            if prompt not in self.lines.get((split, cell), {}):
                self._keep(split, cell, prompt, [record[name] for name in COLUMNS])
                new.append(line)
        if write and new and self.path is not None:
            self._append("".join(new))

    def _append(self, text: str) -> None:
        assert self.path is not None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = text if self.whole else json.dumps(self.header) + "\n" + text
        with self.path.open("r+b" if self.path.is_file() else "wb") as file:
            file.truncate(self.whole)
            file.seek(self.whole)
            file.write(new.encode())
        self.whole += len(new.encode())

    def table(self, split: Split, cell: Cell) -> dict[str, Array]:
        """Every column over the prompts of a split, in their order."""
        kept = self.lines[split, cell.key]
        values = np.array([kept[prompt] for prompt in sorted(kept)])
        table = {name: values[:, index] for index, name in enumerate(COLUMNS)}
        if self.agree_with is None:
            return table
        careful, place = self.lines[split, self.agree_with], COLUMNS.index("answer")
        same = [careful[prompt][place] == kept[prompt][place] for prompt in sorted(kept)]
        return table | {"right": np.array(same, dtype=float)}


def _number(name: str, value: object) -> float:
    low, high = LEAST.get(name, 0), MOST.get(name, LARGEST)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ForeignLine(f"{name} must be a number from {low} to {high:g}, got {shown(value)}")
    return value
