"""One run of a command: undisturbed, or killed and started again until it ends."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

from tests.kills.scenarios import Scenario, differences, facts

SECONDS = 300.0  # of one run at most
KILLED = -9


class Stopped(Exception):
    """The kills are to end."""


@dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes:
        scenario: what is killed.
        how: rename, event or moment.
        at: number of the event, or None.
        after: behind the rename in place of before it.
        share: of the time of an undisturbed run after which the process is killed, or None.
        again: number of an event at which the second run is killed too, or None.
    """

    scenario: str
    how: str
    at: int | None = None
    after: bool = False
    share: float | None = None
    again: int | None = None

    @property
    def name(self) -> str:
        """What it is called in the file of what was found."""
        at = f"{self.share:.4f} of the time" if self.at is None else f"{'after' if self.after else 'before'} {self.at}"
        return f"{self.scenario} {self.how} {at}" + ("" if self.again is None else f", again before {self.again}")


@dataclass(frozen=True)
class Whole:
    """An undisturbed run: what it left, its events, and how long it took."""

    facts: dict[str, Any]
    events: list[str]
    seconds: float


class Servers:
    """Processes that run commands, `tests/kills/child.py`, each used by one thread at a time.

    Args:
        tree: the copy of the source.
        count: how many.
    """

    def __init__(self, tree: Path, count: int) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
        environment["PYTHONHASHSEED"] = "0"  # PEFT writes a set of names into adapter_config.json
        self.stopped = False
        self.free: Queue[subprocess.Popen[str]] = Queue()
        self.all = [
            subprocess.Popen(
                [sys.executable, str(tree / "tests/kills/child.py")], env=environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
            ) for _ in range(count)
        ]  # fmt: skip
        for server in self.all:
            self.free.put(server)

    def ask(self, run: dict[str, Any]) -> tuple[int, float]:
        """Exit code and seconds of a run.

        Raises:
            Stopped: if the servers were stopped.
        """
        with self._one() as server:
            if self.stopped or server.stdin is None or server.stdout is None:
                raise Stopped
            try:
                server.stdin.write(json.dumps(run) + "\n")
                server.stdin.flush()
                answer = json.loads(server.stdout.readline())
            except (OSError, ValueError):
                raise Stopped from None
        return int(answer["code"]), float(answer["seconds"])

    @contextmanager
    def _one(self) -> Iterator[subprocess.Popen[str]]:
        server = self.free.get()
        try:
            yield server
        finally:
            self.free.put(server)

    def stop(self) -> None:
        """End all of them with what they run."""
        self.stopped = True
        for server in self.all:
            if server.poll() is None:
                os.killpg(server.pid, KILLED * -1)


def run(
    servers: Servers,
    folder: Path,
    scenario: Scenario,
    *,
    at: int | None = None,
    after: bool = False,
    seconds: float | None = None,
) -> tuple[int, float]:
    """Run once, killed at an event or after so many seconds; the exit code, KILLED where it was, and the time it took."""
    for name, text in scenario.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    plan = {"at": at, "after": after, "seconds": SECONDS if seconds is None else seconds}
    files = {name: str(folder.parent / f"{folder.name}.{name}") for name in ("events", "said")}
    return servers.ask({**plan, **files, "command": scenario.command, "folder": str(folder)})


def said_of(folder: Path) -> str:
    """The last lines of what a run said."""
    text = (folder.parent / f"{folder.name}.said").read_text(encoding="utf-8", errors="replace")
    return " | ".join(text.strip().splitlines()[-2:])[-400:]


def undisturbed(servers: Servers, folder: Path, scenario: Scenario) -> Whole:
    """Run to the end.

    Raises:
        RuntimeError: if it does not get there.
    """
    folder.mkdir(parents=True)
    code, seconds = run(servers, folder, scenario)
    if code:
        raise RuntimeError(f"{scenario.name} ends with {code}: {said_of(folder)}")
    events = json.loads((folder.parent / f"{folder.name}.events").read_text())
    return Whole(facts(folder), events, seconds)


def outcome(servers: Servers, folder: Path, scenario: Scenario, whole: Whole, kill: Kill) -> tuple[int, list[str]]:
    """How often the run was killed, and what is wrong in the end.

    Args:
        servers: that run it.
        folder: a new one.
        scenario: what runs.
        whole: the undisturbed run.
        kill: when it is killed.
    """
    folder.mkdir(parents=True)
    seconds = None if kill.share is None else kill.share * whole.seconds
    code, _ = run(servers, folder, scenario, at=kill.at, after=kill.after, seconds=seconds)
    kills = int(code == KILLED)
    if kill.again is not None and code == KILLED:
        code, _ = run(servers, folder, scenario, at=kill.again)
        kills += int(code == KILLED)
    if code == KILLED:
        code, _ = run(servers, folder, scenario)
    wrong = [] if code == 0 else [f"ends with {code}: {said_of(folder)}"]
    wrong = wrong or differences(whole.facts, facts(folder))
    if not wrong:
        shutil.rmtree(folder)
    return kills, wrong
