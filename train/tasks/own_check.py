"""A user's own checker, named as module:function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from decoding.calls.request import plain
from models.complaints import shown


@dataclass(frozen=True)
class OwnCheck:
    """Says whether a text is right, in the place of a task's checker.

    Attributes:
        name: module:function.
        function: (prompt, text, response) -> True or False; the response is "" where the file gives none.
    """

    name: str
    function: Callable[[str, str, str], object]

    @property
    def source(self) -> str:
        """Name and source, so that what another version has judged is not gone on with."""
        try:
            return self.name + inspect.getsource(self.function)
        except (OSError, TypeError):
            return self.name

    def judge(self, prompt: str, text: str, response: str, *, place: str) -> bool:
        """Whether the text is right.

        Args:
            prompt, text, response: what the function gets.
            place: of the prompt, for the complaint.

        Raises:
            ValueError: where the function fails, or says neither True nor False, as Python, numpy or torch have them.
        """
        try:
            found = plain(self.function(prompt, text, response))
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            raise ValueError(f"check {self.name} must judge every text, got {said} for {place}") from error
        if not isinstance(found, bool):
            raise ValueError(f"check {self.name} must return True or False, got {shown(found)} for {place}")
        return found


def find_check(name: str | None) -> OwnCheck | None:
    """Import a checker; None where none is named.

    Raises:
        ValueError: for a place without a function that takes three texts.
    """
    if name is None:
        return None
    module, colon, wanted = name.partition(":")
    rule = "check must be module:function of (prompt, text, response)"
    if not (module and colon and wanted):
        raise ValueError(f"{rule}, got {shown(name)}")
    try:
        function = getattr(import_module(module), wanted)
        inspect.signature(function).bind("", "", "")
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{rule}, got {shown(name)} ({error})") from error
    return OwnCheck(name, function)
