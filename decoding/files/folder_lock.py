"""One writer for each folder: a lock that the system frees when its holder ends, however that ends."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from decoding.files.aside import sweep
from models.ranks import find_ranks

try:
    import fcntl
except ImportError:  # no POSIX system, and no such lock
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
TRIES = 100
HELD = (errno.EACCES, errno.EAGAIN)

log = logging.getLogger(__name__)
_mine: dict[Path, int] = {}  # folders that this process holds, and how often


@contextlib.contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Make a folder and let no other process write to it until the end of the block.

    What a killed process left aside there is swept first. The same process may hold a folder more than once. Of several
    processes of one launcher the first holds it for all.

    Raises:
        ValueError: naming the process that holds it; and where a file is in its place.
    """
    key = folder.resolve()
    if key in _mine:
        _mine[key] += 1
        try:
            yield
        finally:
            _mine[key] -= 1
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"out must be a folder, got {folder}, which is a file or lies within one") from None
    with contextlib.ExitStack() as stack:
        if fcntl is not None and find_ranks().first:
            stack.enter_context(_locked(folder))
            sweep(folder, LOCK)
        _mine[key] = 1
        try:
            yield
        finally:
            del _mine[key]


@contextlib.contextmanager
def hold_file(file: Path | None) -> Iterator[None]:
    """Make a file that lines are added to, and let no other process add any until the end of the block; None holds nothing.

    A file that was made for a block that failed goes again where nothing was written to it, and the folders made for it.

    Raises:
        ValueError: if it cannot be written, or another process holds it.
    """
    if file is None:
        yield
        return
    try:
        made, new = first_missing(file.parent), not file.exists()
        if not new and not file.is_file():
            raise ValueError(f"out must be a regular file, got the folder, pipe or device {file}")
        if made is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        opened = file.open("a+b")
    except OSError as error:
        raise ValueError(f"out must be a file that can be written, got {file} ({error.strerror})") from None
    with opened:
        _lock_file(opened, file)
        try:
            yield
        except BaseException:
            if new and not file.stat().st_size:
                file.unlink()
                discard_new(file.parent, made)
            raise


def _lock_file(opened: IO[bytes], file: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD:
            raise ValueError(f"out must be a file that no other run writes to, got {file}") from None
        log.warning("%s cannot be locked (%s): see to it that nothing else writes there", file, error)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with _open_current(folder / LOCK) as file:
        file.seek(0)
        file.truncate()
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}: {command}\n")
        file.flush()
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)  # while it is held: whoever opened it meanwhile opens it again


def _open_current(path: Path) -> IO[str]:
    """The lock file, locked; opened again where its last holder removed it in between."""
    for _ in range(TRIES):
        file = path.open("a+", encoding="utf-8", errors="backslashreplace")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in HELD:
                log.warning("%s cannot be locked (%s): see to it that nothing else writes there", path.parent, error)
                return file
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise _refusal(path.parent, holder) from None
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
        file.close()
    raise _refusal(path.parent, "one process after another")


def _refusal(folder: Path, holder: str) -> ValueError:
    return ValueError(f"out must be a folder that no other run writes to, got {folder}, held by {holder}")


def discard_new(folder: Path, first_made: Path | None) -> None:
    """Remove a folder that holds nothing but its lock, and its parents down from the first that was made for it.

    Args:
        folder: held by this process.
        first_made: the outermost folder that did not exist before; None leaves all as it is.
    """
    if first_made is None or {path.name for path in folder.iterdir()} - {LOCK}:
        return
    (folder / LOCK).unlink(missing_ok=True)
    for one in (folder, *folder.parents):
        with contextlib.suppress(OSError):  # another run has begun to write there
            one.rmdir()
        if one == first_made:
            return


def first_missing(folder: Path) -> Path | None:
    """The outermost folder on the way to this one that does not exist yet; None where all do."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    return missing[-1] if missing else None
