"""Runs a program that a model wrote, in a process of its own with limits; only a command with `run_code` gets here."""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

REAP_SECONDS = 5.0  # for a killed process to be gone
PROCESSES = 4096  # of the whole user, and none of root's: what stops a program that forks without end
READY = b"ready"

# In the child: set the limits, or what the system allows of them, and say so; keep one way out, silence the rest, run the
# program, say the token.
START = """
import os, resource, sys, types
token, seconds, bytes_, processes, ready, file = sys.argv[1], *map(int, sys.argv[2:5]), *sys.argv[5:]
del sys.argv[1:]
for name, limit in (
    ("AS", bytes_), ("CPU", seconds), ("FSIZE", 1 << 20), ("CORE", 0), ("NOFILE", 64), ("NPROC", processes),
):
    kind = getattr(resource, "RLIMIT_" + name, None)
    if kind is None and name == "NPROC":
        continue
    most = resource.getrlimit(kind)[1]
    limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
    resource.setrlimit(kind, (limit, limit))
out = os.dup(1)
os.write(out, ready.encode())
silent = os.open(os.devnull, os.O_WRONLY)
os.dup2(silent, 1)
os.dup2(silent, 2)
with open(file, encoding="utf-8") as text:
    program = compile(text.read(), file, "exec")
module = sys.modules["program"] = types.ModuleType("program")  # dataclasses and typing look annotations up in it
module.__file__ = file
exec(program, module.__dict__)
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
    memory, file size and processes, in a session of its own that is killed at the end. This stops accidents, not an attacker:
    the network stays open, and a process that begins a session of its own is not killed.

    Raises:
        ValueError: where the system has no such limits, or they cannot be set.
    """
    if os.name != "posix":
        raise ValueError(f"run_code must be false on systems without process limits, got {os.name}")
    limits = limits or Limits()
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "program.py"
        file.write_text(program, encoding="utf-8", errors="replace")
        numbers = [str(int(limits.seconds) + 1), str(limits.megabytes << 20), str(PROCESSES)]
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-c", START, token, *numbers, READY.decode(), str(file)],
            cwd=folder,
            env={"PATH": os.defpath, "HOME": folder, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wanted = READY + token.encode()
        try:
            received, closed = _listen(process, len(wanted), limits.seconds)
        finally:
            _end(process)
    if closed and not received.startswith(READY):
        raise ValueError(f"run_code must be false where process limits cannot be set, got {limits} refused")
    return received == wanted


def _listen(process: subprocess.Popen[bytes], length: int, seconds: float) -> tuple[bytes, bool]:
    """What the program says, `length` bytes at most, before the time is up, and whether it then closed its way out.

    Whoever else holds that way open is not waited for.
    """
    assert process.stdout is not None
    received, end = b"", time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while len(received) < length and selector.select(max(0.0, end - time.monotonic())):
            part = os.read(process.stdout.fileno(), length - len(received))
            if not part:
                return received, True
            received += part
    return received, False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the program with whatever it started in its session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing is left of it but a process to be reaped
        os.killpg(process.pid, signal.SIGKILL)
    if process.stdout is not None:
        process.stdout.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=REAP_SECONDS)
