"""Breaks the code in many ways and sees that a test fails each time: ``python -m tests.mutation [NAME ...] [--workers 2]``.

Every mutation is applied to a copy of the tree, never to the tree itself. A mutation whose line is no longer in the code is
reported as stale, and counts as not caught.
"""

from __future__ import annotations

import argparse
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutation.catalogue import MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]
SECONDS = 300  # a test that hangs has noticed


def copy_tree(folder: Path) -> Path:
    """The tracked and the new files of the working tree, in a folder of their own; large ones as links."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, names):
        source, target = ROOT / name, folder / name
        if not source.is_file():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if name.startswith("checkpoints/"):
            target.symlink_to(source)
        else:
            shutil.copyfile(source, target)
    return folder


def outcome(mutation: Mutation, tree: Path) -> str:
    """`caught`, `SURVIVED` or `STALE`."""
    file = tree / mutation.file
    sound = file.read_text(encoding="utf-8")
    if sound.count(mutation.old) != 1 or mutation.old == mutation.new:
        return "STALE"
    file.write_text(sound.replace(mutation.old, mutation.new), encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutation.tests.split()]
    try:
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, timeout=SECONDS)
        return {0: "SURVIVED", 1: "caught", 2: "caught"}.get(done.returncode, f"no test ran ({done.returncode})")
    except subprocess.TimeoutExpired:
        return "caught"
    finally:
        file.write_text(sound, encoding="utf-8")


def chosen(names: list[str]) -> list[Mutation]:
    """The mutations whose name or file holds one of the words given; all where none is."""
    return [one for one in MUTATIONS if not names or any(word in f"{one.name} {one.file}" for word in names)]


def main() -> int:
    """Run, one line a mutation; the exit code says whether all were caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="words of the mutations to run, or of their files; all where left out")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    wanted, began = chosen(given.names), time.monotonic()
    trees: queue.Queue[Path] = queue.Queue()

    def run(mutation: Mutation) -> str:
        tree = trees.get()
        try:
            return outcome(mutation, tree)
        finally:
            trees.put(tree)

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(given.workers) as pool:
        for number in range(given.workers):
            trees.put(copy_tree(Path(folder) / str(number)))
        results = []
        for mutation, found in zip(wanted, pool.map(run, wanted), strict=True):
            results.append(found)
            sys.stdout.write(f"{found:9s} {mutation.name}\n")
            sys.stdout.flush()
    caught = results.count("caught")
    sys.stdout.write(f"{caught} of {len(results)} caught in {(time.monotonic() - began) / 60:.1f} minutes\n")
    return int(caught < len(results))


if __name__ == "__main__":
    raise SystemExit(main())
