"""One line for every sample that was evaluated, beside which it cost, and from which a stopped run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from decoding.provenance import code, dtype_name, weights_of
from models.checkpoints.json_files import cut_to_lines, read_lines
from models.complaints import first_difference, shown
from models.denoiser import Denoiser
from train.harness.arguments import Evaluation

WITHOUT_EFFECT = ("save_dir", "batch_size", "device")  # on an answer


def header_of(evaluation: Evaluation, denoiser: Denoiser) -> dict[str, Any]:
    """All that the answers of an evaluation depend on, the weights themselves by their fingerprints."""
    told = {name: value for name, value in asdict(evaluation).items() if name not in WITHOUT_EFFECT}
    return {**told, **weights_of(denoiser), "dtype": dtype_name(denoiser), "code": code()}


class Journal:
    """Answers by the request that they answer, in a file of a folder.

    Args:
        folder: None keeps nothing.
        rank: of this process, which has a file of its own.
        header: all that the answers depend on.

    Raises:
        ValueError: if the folder holds answers of another header.
    """

    def __init__(self, folder: str | None, rank: int, header: Mapping[str, Any]) -> None:
        self.file = None if folder is None else Path(folder) / f"samples-{rank}.jsonl"
        self.known: dict[str, dict[str, Any]] = {}
        self._seen: dict[str, int] = {}
        if self.file is None:
            return
        now = json.loads(json.dumps(dict(header)))
        cut_to_lines(self.file)
        lines = read_lines(self.file, finite=False)
        if lines and lines[0] != now:
            differs = first_difference(now, lines[0]) or "header"
            raise ValueError(
                f"save_dir must hold answers of the same settings, or none, got {folder} with another {differs}: "
                f"{shown(lines[0].get(differs))} there, {shown(now.get(differs))} now"
            )
        for number, line in enumerate(lines[1:], 2):
            if not isinstance(line.get("key"), str):
                raise ValueError(
                    f"{self.file}, line {number} must name what it answers, got key {shown(line.get('key'))}"
                )
            self.known[line["key"]] = line
        if not lines:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._write(now)

    def key(self, kind: str, arguments: tuple[Any, ...]) -> str:
        """What names a request: its kind and text, and how often the same one came before."""
        text = json.dumps([kind, *arguments], sort_keys=True, default=str)
        number = self._seen[text] = self._seen.get(text, -1) + 1
        return hashlib.sha256(f"{number}/{text}".encode()).hexdigest()[:32]

    def start(self) -> None:
        """Count equal requests from the first again: the harness hands over a new list."""
        self._seen = {}

    def add(self, key: str, line: Mapping[str, Any]) -> None:
        """Keep an answer."""
        entry = {"key": key, **line}
        self.known[key] = entry
        if self.file is not None:
            self._write(entry)

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self.file is not None
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
