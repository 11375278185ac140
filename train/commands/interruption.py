"""Ctrl-C and SIGTERM: told in one line with what is kept, and an exit code that says so."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class Interrupted(BaseException):
    """A signal asked the command to end.

    No `KeyboardInterrupt`, which Lightning turns into an exit of its own.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(WORDS.get(signal.Signals(number), str(number)))
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell reports for a process that a signal ended: 130 after Ctrl-C."""
        return 128 + self.number


def _raise(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


@contextlib.contextmanager
def interruptible(handler: Callable[[int, FrameType | None], Any] = _raise) -> Iterator[None]:
    """Within the block the signals of SIGNALS call the handler, by default one that raises `Interrupted`."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    mine, before = os.getpid(), {number: signal.getsignal(number) for number in SIGNALS}

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != mine:  # a forked worker
            os._exit(128 + number)
        handler(number, frame)

    for number in SIGNALS:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


class StopGently:
    """The first signal asks for a clean stop, which whoever runs steps looks up; a second one ends at once.

    Attributes:
        number: of the signal that came, None while none did.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return self.number is not None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note a signal; raise at the second."""
        if self.asked:
            raise Interrupted(number)
        self.number = number

    def raise_if_asked(self) -> None:
        """End the command once what was asked for is kept.

        Raises:
            Interrupted: if a signal came.
        """
        if self.number is not None:
            raise Interrupted(self.number)
