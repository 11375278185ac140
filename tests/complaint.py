"""The one sentence that a command ends with where its input is bad."""

from collections.abc import Callable
from typing import Any

import pytest

from train.commands.command_line import run


def complaint(capsys: pytest.CaptureFixture[str], command: Callable[..., Any], *arguments: str) -> str:
    """The sentence on stderr of a command that ends with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        run(command, arguments)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err.removesuffix("\n")
