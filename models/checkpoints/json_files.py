"""JSON that a stranger wrote or a disk damaged: read as an object, or refused in one sentence that names the file and the line.

Imports nothing heavy: commands judge files with it first.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LARGEST = 1 << 30  # bytes of one object
SUM = "sha256"  # key of the sum over all others


def parse(text: str, *, finite: bool = True) -> Any:
    """What a JSON text holds; without `finite` also NaN and infinities, which Python writes.

    Raises:
        ValueError: for text that is no JSON, a key that is there twice, nesting without end, and numbers that are none.
    """
    numbers: dict[str, Any] = {"parse_constant": _refuse, "parse_float": _finite} if finite else {}
    try:
        return json.loads(text, object_pairs_hook=_once, **numbers)
    except RecursionError:
        raise ValueError("it must be nested less deeply") from None


def read_object(file: Path, *, finite: bool = True) -> dict[str, Any]:
    """The JSON object in a file; `finite` as in `parse`.

    Raises:
        ValueError: naming the file, where it is missing, no regular file, or holds anything else.
    """
    if file.exists() and not file.is_file():
        raise ValueError(f"{file} must be a regular file, got a folder, a pipe or a device")
    try:
        if file.stat().st_size > LARGEST:
            raise ValueError(f"{file.stat().st_size} bytes, more than {LARGEST}")
        found = parse(file.read_text(encoding="utf-8"), finite=finite)
    except (ValueError, OSError) as error:
        raise ValueError(f"{file} must be JSON, got {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} must hold a JSON object, got {type(found).__name__}")
    return found


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with a sha256 over all of it, as `require_sound` compares it."""
    known = {name: value for name, value in content.items() if name != SUM}
    return {**known, SUM: hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()}


def require_sound(content: Mapping[str, Any]) -> None:
    """Refuse content that differs from what `sealed` saw; one without a sum is of an earlier version.

    Raises:
        ValueError: if it was damaged, or changed by hand.
    """
    if SUM in content and sealed(content)[SUM] != content[SUM]:
        raise ValueError(
            f"it must be as it was written, got other values: damaged, or changed by hand (without {SUM} it is taken)"
        )


def whole_lines(file: Path) -> list[bytes]:
    """The lines of a file that end, those of none where there is no file; a killed run may leave a part of one behind them."""
    if not file.exists():
        return []
    if not file.is_file():
        raise ValueError(f"{file} must be a regular file, got a folder, a pipe or a device")
    return file.read_bytes().split(b"\n")[:-1]


def read_lines(file: Path, *, finite: bool = True) -> list[dict[str, Any]]:
    """The JSON objects of a file, one a line; a last line that was cut off is none. `finite` as in `parse`.

    Raises:
        ValueError: naming file and line, where one holds anything else.
    """
    found = []
    for number, line in enumerate(whole_lines(file), 1):
        try:
            one = parse(line.decode("utf-8"), finite=finite)
        except ValueError as error:
            raise ValueError(f"{file}, line {number} must be JSON, got {error}") from error
        if not isinstance(one, dict):
            raise ValueError(f"{file}, line {number} must hold a JSON object, got {type(one).__name__}")
        found.append(one)
    return found


def cut_to_lines(file: Path) -> None:
    """Take away what a killed run left behind the last whole line."""
    if file.is_file():
        whole = sum(len(line) + 1 for line in whole_lines(file))
        if whole < file.stat().st_size:
            with file.open("r+b") as stream:
                stream.truncate(whole)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    known = dict(pairs)
    if len(known) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice} must be there once in a row, got it twice")
    return known


def _refuse(constant: str) -> float:
    raise ValueError(f"numbers must be finite, got {constant}")


def _finite(text: str) -> float:
    """A float; one so large that it would be infinite is refused."""
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)
