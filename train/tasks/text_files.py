"""Lines of a user's file and what they hold: text in UTF-8 and JSON without surprises, or one sentence that names the place."""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from models.checkpoints.json_files import parse
from models.complaints import shown

LONGEST = 400  # characters of a complaint
GZIP = b"\x1f\x8b"
WIDE = (b"\xff\xfe", b"\xfe\xff")  # how files of two bytes a letter begin
LONGEST_LINE = 1 << 25  # characters of a line
STRANGE = re.compile("[\ud800-\udfff\0]")  # a byte that was no UTF-8, or zero


def lines_of(path: Path) -> Iterator[str]:
    """Yield the lines of a text file in UTF-8, a byte-order mark dropped; packed if its name ends in `.gz`.

    Raises:
        ValueError: naming the file, and the line where there is one, for what is no file, another encoding, a damaged or a false
            `.gz`.
    """
    if path.is_fifo() or path.is_dir() or not path.exists():
        got = "a pipe: - reads standard input" if path.is_fifo() else "a folder" if path.is_dir() else "none"
        raise ValueError(f"{path} must be a file that is there, got {got}")
    with path.open("rb") as raw:
        start = raw.read(2)
        raw.seek(0)
        packed = path.suffix == ".gz"
        if packed and start and start != GZIP:
            raise ValueError(f"{path} must be a gzip file by its name, got one that begins with {shown(start)}")
        if not packed and start == GZIP:
            raise ValueError(f"{path} must be text by its name, got a gzip file: name it {path.name}.gz")
        try:
            yield from decoded(path, gzip.GzipFile(fileobj=raw) if packed else raw)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} must be a whole gzip file, got a damaged one ({error})") from error


def decoded(path: Path | str, stream: Any) -> Iterator[str]:
    """The lines of an open file; bytes that are no UTF-8 come through as lone surrogates, and are refused with their line."""
    with io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape") as text:
        for number, line in enumerate(iter(partial(text.readline, LONGEST_LINE), ""), 1):
            found = STRANGE.search(line)
            if found is not None:
                wide = found[0] == "\0" or line[:2].encode("utf-8", "surrogateescape")[:2] in WIDE
                byte = f"byte 0x{ord(found[0]) & 0xFF:02x} at {found.start()}" + ", as in Latin-1" * (found[0] > "\0")
                got = "UTF-16" if wide and number == 1 else byte
                raise ValueError(f"{path}, line {number}: text must be in UTF-8, got {got}")
            if len(line) == LONGEST_LINE:
                raise ValueError(
                    f"{path}, line {number}: a line must have fewer than {LONGEST_LINE} characters, got more"
                )
            yield line


def parse_json(line: str) -> Any:
    """What a line of JSON holds.

    Raises:
        ValueError: for text that is no JSON, a key that is there twice, NaN, or nesting without end.
    """
    try:
        return parse(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"line must be JSON, got {shorten(line)} ({error.msg})") from error


def require_text(name: str, text: str) -> str:
    """The text itself; refuses half of a letter (a lone surrogate) and zero bytes, which JSON can spell and no tokenizer reads.

    Raises:
        ValueError: in one sentence.
    """
    if (found := STRANGE.search(text)) is not None:
        raise ValueError(f"{name} must be whole letters, got {found[0]!a}")
    return text


def placed(place: str, error: ValueError) -> ValueError:
    """A complaint about a row with its place before it, on one line, and cut where it shows a long value."""
    said = " ".join(str(error).split())
    return ValueError(f"{place}: {said if len(said) <= LONGEST else said[: LONGEST - 3] + '...'}")


def shorten(text: str) -> str:
    """A text as it is shown in a complaint."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
