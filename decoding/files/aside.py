"""Files written aside and renamed: what stands under a file's name is whole, the old one or the new."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BEFORE, AFTER = ".", ".aside"


@contextmanager
def written_aside(file: Path) -> Iterator[Path]:
    """A path to write to, which is renamed to `file` at the end of the block and removed where that fails.

    A killed process leaves it: the next one to write the file writes over it, and `sweep` removes it.

    Args:
        file: where it goes; its folder is made.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f"{BEFORE}{file.name}{AFTER}")
    try:
        yield aside
        aside.replace(file)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def sweep(folder: Path, lock: str) -> None:
    """Remove every file that a killed process left aside in a folder and in those within.

    Hidden folders, links and folders that another process may hold are left alone.

    Args:
        folder: that nothing else writes to.
        lock: name of the file that a folder in use holds.
    """
    for here, folders, names in os.walk(folder):
        if lock in names and Path(here) != folder:
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.startswith(BEFORE) and name.endswith(AFTER):
                Path(here, name).unlink(missing_ok=True)
