"""Several processes on one folder: each takes the tasks that no other holds, until the time is over."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from decoding.files.folder_lock import hold_folder

TRIES, PAUSE = 600, 0.1  # seconds


class OutOfTime(Exception):
    """The time that the command was given is over."""


class Deadline:
    """When to stop.

    Args:
        minutes: from now; None never stops.
    """

    def __init__(self, minutes: float | None) -> None:
        if minutes is not None and not minutes > 0:
            raise ValueError(f"minutes must be above 0, got {minutes}")
        self._end = None if minutes is None else time.monotonic() + 60 * minutes

    def check(self) -> None:
        """Go on, or stop.

        Raises:
            OutOfTime: where the time is over.
        """
        if self._end is not None and time.monotonic() > self._end:
            raise OutOfTime


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Hold a folder for the block, which is told whether it does; a process that ends, however that ends, holds nothing."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold_folder(folder))
        except ValueError:  # another process has it
            yield False
            return
        yield True


@contextlib.contextmanager
def wait_for(folder: Path) -> Iterator[None]:
    """Hold a folder for the block once the others have done with it.

    Raises:
        ValueError: after a minute.
    """
    for _ in range(TRIES):
        with claim(folder) as mine:
            if mine:
                yield
                return
        time.sleep(PAUSE)
    raise ValueError(f"out must be a folder that others leave within {TRIES * PAUSE:.0f} s, got {folder}")
