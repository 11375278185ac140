"""Runs a program that a model wrote, in a process of its own with limits; only a command with `run_code` gets here."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

# In the child: set the limits, keep one way out for the token, silence the rest, run the program, say the token.
START = """
import os, resource, sys
token, seconds, bytes_, file = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
del sys.argv[1:]
for kind, limit in (
    (resource.RLIMIT_AS, bytes_), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_FSIZE, 1 << 20),
    (resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, 64),
):
    resource.setrlimit(kind, (limit, limit))
out = os.dup(1)
silent = os.open(os.devnull, os.O_WRONLY)
os.dup2(silent, 1)
os.dup2(silent, 2)
with open(file, encoding="utf-8") as text:
    program = compile(text.read(), "program.py", "exec")
exec(program, {"__name__": "program"})
os.write(out, token.encode())
os._exit(0)
"""


@dataclass(frozen=True)
class Limits:
    """What a program may use.

    Args:
        seconds: of wall clock; one more of processor time.
        megabytes: of address space.
    """

    seconds: float = 10.0
    megabytes: int = 1024

    def __post_init__(self) -> None:
        for name in ("seconds", "megabytes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")


def run_program(program: str, limits: Limits | None = None) -> bool:
    """Run a Python program and say whether it came to its end without an exception.

    It runs isolated (`python -I`) in an empty temporary folder, without input, environment or output, with limits on time,
    memory and file size, in a session of its own that is killed at the end. This stops accidents, not an attacker: the
    network stays open.

    Raises:
        ValueError: where the system has no such limits.
    """
    if os.name != "posix":
        raise ValueError(f"run_code must be false on systems without process limits, got {os.name}")
    limits = limits or Limits()
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "program.py"
        file.write_text(program, encoding="utf-8", errors="replace")
        numbers = [str(int(limits.seconds) + 1), str(limits.megabytes << 20)]
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-c", START, token, *numbers, str(file)],
            cwd=folder,
            env={"PATH": os.defpath, "HOME": folder, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=limits.seconds)
        except subprocess.TimeoutExpired:
            return False
        finally:
            _end(process)
    return said == token.encode()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the program with whatever it started."""
    with contextlib.suppress(ProcessLookupError):  # it has ended, and nothing that it started is left
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
