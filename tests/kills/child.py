"""Runs a command of this project and ends it by SIGKILL at a given event: ``python child.py PLAN COMMAND ...``.

An event is what changes the folder that the command runs in: a rename, a file opened to be written, one removed or cut, a folder
made or removed. PLAN is a JSON file: `at` is the number of the event, counted from 1, or null; `after` lets a rename happen first;
`events` is a file that gets the list of all events where the command is not killed.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
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


def main() -> None:
    """Watch, and run the command as Python would."""
    plan, command = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2:]
    watch = Watch(plan["at"], plan["after"])
    sys.path[0] = str(ROOT)
    sys.argv = command
    os.rename = os.replace = watch.renaming
    sys.addaudithook(watch.hook)
    try:
        if command[0].endswith(".py"):
            runpy.run_path(str(ROOT / command[0]), run_name="__main__")
        else:
            runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    finally:
        seen, watch.at = list(watch.seen), None
        Path(plan["events"]).write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
