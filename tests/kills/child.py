"""Runs commands of this project one after the other, and ends each by SIGKILL at a given event: ``python child.py``.

What takes long to import is imported once; every command runs in a fork of this process, in a folder of its own. A line of JSON on
standard input asks for a run, see `serve`; a line on standard output says how it ended.

An event is what changes the folder that the command runs in: a rename, a file opened to be written, one removed or cut, a folder
made or removed. Events are counted from 1.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import random
import runpy
import signal
import sys
import time
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parents[2]
SLOW = (
    *("torch", "transformers", "lightning.pytorch", "peft", "pyarrow.parquet", "datasets", "torch.utils.tensorboard"),
    *("matplotlib.pyplot", "jsonargparse", "jinja2", "jsonschema", "jaxtyping"),
)
NAMES = {
    "os.rename": "rename",
    "os.remove": "remove",
    "os.rmdir": "rmdir",
    "os.mkdir": "mkdir",
    "os.truncate": "truncate",
    "open": "open",
}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Watch:
    """Counts events and kills this process at one of them.

    Args:
        at: number of the event, None for none.
        after: let a rename happen first.
    """

    def __init__(self, at: int | None, after: bool) -> None:
        self.at, self.after, self.seen = at, after, list[str]()
        self.here = os.getcwd() + os.sep
        self.rename, self.replace = os.rename, os.replace

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook of Python."""
        name = NAMES.get(event)
        if name is None or not arguments or not isinstance(arguments[0], str | os.PathLike):
            return
        if name == "open" and not int(arguments[2] or 0) & WRITES:
            return
        path = os.path.join(self.here, os.fspath(arguments[0]))
        if not path.startswith(self.here):
            return
        self.seen.append(f"{name} {path[len(self.here) :]}")
        if len(self.seen) == self.at and not (self.after and name == "rename"):
            os.kill(os.getpid(), signal.SIGKILL)

    def renaming(self, source: Any, target: Any, **how: Any) -> None:
        """`os.replace` with the chance to die behind it."""
        self.replace(source, target, **how)
        if self.after and len(self.seen) == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def command(asked: dict[str, Any]) -> None:
    """Watch, and run a command as Python would, in this process: its folder, what it says and its random numbers are its own."""
    os.chdir(asked["folder"])
    said, nothing = os.open(asked["said"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (said, 1), (said, 2)):
        os.dup2(source, target)
    random.seed()
    importlib.import_module("numpy").random.seed()
    watch = Watch(asked["at"], asked["after"])
    sys.path[0] = str(ROOT)
    sys.argv = asked["command"]
    os.rename = os.replace = watch.renaming
    sys.addaudithook(watch.hook)
    try:
        if sys.argv[0].endswith(".py"):
            runpy.run_path(str(ROOT / sys.argv[0]), run_name="__main__")
        else:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    finally:
        seen, watch.at = list(watch.seen), None
        Path(asked["events"]).write_text(json.dumps(seen))


def ended(child: int, seconds: float) -> int:
    """Exit code of a process, -9 where it was killed, as it is after so many seconds."""
    until = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        time.sleep(0.005)


def serve(answers: TextIO) -> dict[str, Any] | None:
    """Fork for every run that is asked for, and say how it ended: its exit code and its seconds.

    A run is `command`, `folder` it runs in, `seconds` after which it is killed, `at` and `after` of `Watch`, `said`, a file that
    gets what it says, and `events`, one that gets the list of all events where it is not killed.

    Returns:
        In a fork, what it has to run; None at the end.
    """
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        began = time.monotonic()
        child = os.fork()
        if not child:
            return asked
        answers.write(json.dumps({"code": ended(child, asked["seconds"]), "seconds": time.monotonic() - began}) + "\n")
        answers.flush()
    return None


def prepare() -> None:
    """Import what takes long, where it is installed, and bundle the scripts of a report once: that takes five seconds."""
    for name in SLOW:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    with contextlib.suppress(ImportError):
        pictures = importlib.import_module("vl_convert")
        pictures.javascript_bundle = functools.cache(pictures.javascript_bundle)
        importlib.import_module("train.report.page").library()


def main() -> None:
    """Prepare, serve, and in a fork run."""
    sys.path[0] = str(ROOT)
    prepare()
    asked = serve(os.fdopen(os.dup(1), "w"))
    if asked is not None:
        command(asked)


if __name__ == "__main__":
    main()
