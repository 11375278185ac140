"""A command that notes what it was given, and what it leaves in its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from decoding.files.folder_lock import LOCK
from train.commands.command_line import run

ROOT = Path(__file__).parents[1]


def command(
    out: str = "out", prompt: str | None = None, name: str = "x", rate: float = 0.1, settings: dict | None = None
) -> None:
    """Do nothing.

    Args:
        out: the folder.
        prompt: a text.
        name: another.
        rate: above 1 is refused.
        settings: any.
    """
    if rate > 1:
        raise ValueError(f"rate must be at most 1, got {rate}")
    SEEN.append(prompt)


SEEN: list[str | None] = []


def told(capsys, *arguments: str, function=command) -> str:
    """The one line on stderr of a refused call."""
    with pytest.raises(SystemExit) as ended:
        run(function, arguments)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1, printed.err
    return printed.err.strip()


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != LOCK}
