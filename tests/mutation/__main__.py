"""Breaks the code in many ways and sees that a test fails each time: ``python -m tests.mutation [WORD ...] [--jobs 2]``.

Every mutation is applied to a copy of the tree, never to the tree itself. A mutation whose line is no longer in the code is
reported as stale, and counts as not caught. First every group of tests must pass on the sound code. What was found is kept, and a
later call of the same code goes on from there. Mutations whose tests do not pass are not tried and count as not caught.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TypeVar

from tests.mutation.catalogue import MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]
DONE = ROOT / ".cache" / "mutation.json"
APART = ("__pycache__", "runs", "node_modules")
SECONDS = 900  # a test that hangs has noticed
CAUGHT, HANGS, SURVIVED, STALE, SOUND = "caught", "caught, hangs", "SURVIVED", "STALE", "sound"
Work = TypeVar("Work")


def names_of_tree() -> list[str]:
    """The tracked and the new files of the working tree; without git all but hidden folders and caches."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        found = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):
        paths = [file.relative_to(ROOT) for file in ROOT.rglob("*")]
        found = [path.as_posix() for path in paths if not any(part[0] == "." or part in APART for part in path.parts)]
    return [name for name in found if name and (ROOT / name).is_file()]


def copy_tree(folder: Path) -> Path:
    """The files of the working tree in a folder of their own; large ones as links."""
    for name in names_of_tree():
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name.startswith("checkpoints/"):
            target.symlink_to(source)
        else:
            shutil.copyfile(source, target)
    return folder


def tested(tests: str, tree: Path) -> int:
    """Exit code of pytest on some tests of a tree; raises TimeoutExpired where they hang."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests.split()]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, timeout=SECONDS).returncode


def outcome(mutation: Mutation, tree: Path) -> str:
    """CAUGHT, HANGS, SURVIVED or STALE, or that no test ran."""
    file = tree / mutation.file
    sound = file.read_text(encoding="utf-8") if file.is_file() else ""
    if sound.count(mutation.old) != 1 or mutation.old == mutation.new:
        return STALE
    file.write_text(sound.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        code = tested(mutation.tests, tree)
        return {0: SURVIVED, 1: CAUGHT, 2: CAUGHT}.get(code, f"no test ran ({code})")
    except subprocess.TimeoutExpired:
        return HANGS
    finally:
        file.write_text(sound, encoding="utf-8")


def soundness(tests: str, tree: Path) -> str:
    """SOUND where the tests pass on the code as it is, else what they end with."""
    try:
        code = tested(tests, tree)
    except subprocess.TimeoutExpired:
        return f"hangs for {SECONDS} s on sound code"
    return SOUND if code == 0 else f"ends with {code} on sound code"


def chosen(words: Sequence[str]) -> list[Mutation]:
    """The mutations whose name or file holds one of the words given; all where none is."""
    return [one for one in MUTATIONS if not words or any(word in f"{one.name} {one.file}" for word in words)]


def name_of_code() -> str:
    """Short name of all code and tests: what was found of other code is not taken over."""
    files = sorted(
        file for folder in ("decoding", "models", "train", "tests") for file in (ROOT / folder).rglob("*.py")
    )
    files += sorted(ROOT.glob("*.py"))
    return hashlib.blake2b(b"\0".join(file.read_bytes() for file in files), digest_size=8).hexdigest()


class Found:
    """What was found so far, in a file that a later call reads.

    Args:
        file: the JSON file.
        code: short name of the code; findings about other code are left out.
    """

    def __init__(self, file: Path, code: str) -> None:
        self.file, self.code, self.lock = file, code, Lock()
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))
            self.known: dict[str, str] = kept["found"] if kept["code"] == code else {}
        except (OSError, ValueError, KeyError, TypeError):
            self.known = {}

    def add(self, name: str, result: str) -> None:
        """Keep a result, aside and renamed."""
        with self.lock:
            self.known[name] = result
            self.file.parent.mkdir(parents=True, exist_ok=True)
            aside = self.file.with_name(self.file.name + ".part")
            aside.write_text(json.dumps({"code": self.code, "found": self.known}, indent=1), encoding="utf-8")
            aside.replace(self.file)


def table(wanted: Sequence[Mutation], found: Mapping[str, str]) -> str:
    """Mutations and how many were caught, by file."""
    every = Counter(one.file for one in wanted)
    caught = Counter(one.file for one in wanted if found.get(one.name) in (CAUGHT, HANGS))
    rows = [f"| {file} | {every[file]} | {caught[file]} |" for file in sorted(every)]
    total = f"| all | {every.total()} | {caught.total()} |"
    return "\n".join(["| file | mutations | caught |", "|---|---|---|", *rows, total])


def run_all(work: Sequence[Work], do: Callable[[Work, Path], tuple[str, str]], found: Found, jobs: int) -> None:
    """Do all work, each piece on a copy of the tree that no other uses, a line for each.

    Args:
        work: the pieces.
        do: gives the name of a piece and its result on a tree.
        found: where results are kept.
        jobs: copies of the tree.
    """
    trees: queue.Queue[Path] = queue.Queue()

    def one(piece: Work) -> None:
        tree = trees.get()
        began = time.monotonic()
        try:
            name, result = do(piece, tree)
        finally:
            trees.put(tree)
        found.add(name, result)
        sys.stdout.write(f"{result:9s} {name} ({time.monotonic() - began:.0f} s)\n")
        sys.stdout.flush()

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        for number in range(min(jobs, max(1, len(work)))):
            trees.put(copy_tree(Path(folder) / str(number)))
        list(pool.map(one, work))


def main() -> int:
    """Run, one line a mutation and a table last; the exit code says whether all were caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="words of the mutations to run, or of their files; all where left out")
    parser.add_argument("--jobs", "--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--done", type=Path, default=DONE, help="file that keeps what was found")
    parser.add_argument("--trust", action="store_true", help="do not try the tests on sound code first")
    given = parser.parse_args()
    wanted, began = chosen(given.names), time.monotonic()
    found = Found(given.done, name_of_code())
    groups = [] if given.trust else list(dict.fromkeys(one.tests for one in wanted))
    run_all(
        [tests for tests in groups if found.known.get(tests) != SOUND],
        lambda tests, tree: (tests, soundness(tests, tree)),
        found,
        given.jobs,
    )
    unsound = {tests: found.known[tests] for tests in groups if found.known[tests] != SOUND}
    for tests, why in unsound.items():
        sys.stdout.write(f"not tried, its tests fail before anything is broken ({why}): {tests}\n")
    left = [one for one in wanted if found.known.get(one.name) not in (CAUGHT, HANGS) and one.tests not in unsound]
    run_all(left, lambda one, tree: (one.name, outcome(one, tree)), found, given.jobs)
    results = {one.name: found.known.get(one.name, "not tried") for one in wanted}
    missed = [f"{result} {name}" for name, result in results.items() if result not in (CAUGHT, HANGS)]
    sys.stdout.write("\n".join(["", table(wanted, results), *missed, ""]))
    caught = len(wanted) - len(missed)
    sys.stdout.write(f"{caught} of {len(wanted)} caught in {(time.monotonic() - began) / 60:.1f} minutes\n")
    return int(bool(missed))


if __name__ == "__main__":
    raise SystemExit(main())
