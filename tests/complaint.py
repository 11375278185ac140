"""The one sentence that a command ends with where its input is bad."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from train.commands.command_line import run

ROOT = Path(__file__).parents[1]


def complaint(capsys: pytest.CaptureFixture[str], command: Callable[..., Any], *arguments: str) -> str:
    """The sentence on stderr of a command that ends with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        run(command, arguments)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err.removesuffix("\n")


def early_complaint(script: str, *arguments: str, before: tuple[str, ...] = ("torch", "transformers")) -> str:
    """What a script of the top level prints on stderr, which ends with exit code 2 before it imports these modules."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = {[script, *arguments]!r}\n"
        f"try: runpy.run_path({script!r}, run_name='__main__')\n"
        f"except SystemExit as ended: print(ended.code, *[name for name in {before!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "2\n"
    return done.stderr
