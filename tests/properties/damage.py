"""Ways to damage a file: bytes as a disk or a transfer does it, JSON and lines as an editor or another tool does it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

WRONG: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 1.5, -0.0, 1e308, float("nan"), float("inf"), 2**31, 2**63, 10**30, "", "1", "x", "../x",
    "\ud800", [], [[]], [None], ["a"], [1], [0, -1], {}, {"a": 1}, {"": None},
)  # fmt: skip


def flip(data: bytearray, draw: random.Random) -> bytearray:
    """One bit."""
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return data


def flip_many(data: bytearray, draw: random.Random) -> bytearray:
    """Several bits, most of them early in the file, where headers are."""
    for _ in range(draw.randint(2, 12)):
        data[int(len(data) * draw.random() ** 3)] ^= 1 << draw.randrange(8)
    return data


def cut(data: bytearray, draw: random.Random) -> bytearray:
    """The end is missing."""
    return data[: draw.randrange(len(data))]


def zero(data: bytearray, draw: random.Random) -> bytearray:
    """A stretch of zeros, as a sector that was never written."""
    low = draw.randrange(len(data))
    high = min(len(data), low + draw.randint(1, max(1, len(data) // 4)))
    data[low:high] = bytes(high - low)
    return data


def swap(data: bytearray, draw: random.Random) -> bytearray:
    """Two stretches have changed places."""
    size = draw.randint(1, max(1, len(data) // 4))
    first, second = draw.randrange(len(data)), draw.randrange(len(data))
    data[first : first + size], data[second : second + size] = data[second : second + size], data[first : first + size]
    return data


def leave_out(data: bytearray, draw: random.Random) -> bytearray:
    """A stretch is missing."""
    low = draw.randrange(len(data))
    del data[low : low + draw.randint(1, max(1, len(data) // 4))]
    return data


def insert(data: bytearray, draw: random.Random) -> bytearray:
    """Bytes too many."""
    low = draw.randrange(len(data) + 1)
    data[low:low] = draw.randbytes(draw.randint(1, 16))
    return data


def repeat(data: bytearray, draw: random.Random) -> bytearray:
    """A stretch stands there twice."""
    low = draw.randrange(len(data))
    data[low:low] = data[low : low + draw.randint(1, max(1, len(data) // 2))]
    return data


def replace(data: bytearray, draw: random.Random) -> bytearray:
    """Another file altogether."""
    others = (b"", b"\x00", b"null", b"[]", b"{}", b"[" * 100_000, b'{"a":' * 20_000, b"\xff\xfe", draw.randbytes(64))
    return bytearray(draw.choice(others))


BYTES = (flip, flip, flip_many, cut, zero, swap, leave_out, insert, repeat, replace)


def at_random(value: Any, draw: random.Random, change: Callable[[Any], Any], depth: int = 0) -> Any:
    """The value with one place within it changed."""
    inner = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not inner or (depth and draw.random() < 0.3):
        return change(value)
    key = draw.choice(inner)
    if draw.random() < 0.15 and isinstance(value, dict):
        return {name: one for name, one in value.items() if name != key}
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[key] = at_random(value[key], draw, change, depth + 1)
    return changed


def wrong_value(data: bytearray, draw: random.Random) -> bytearray:
    """A value of another kind somewhere in JSON; of lines, in one of them. Other text is damaged as bytes."""
    lines = data.decode("utf-8").split("\n")
    wide = len(data) > 2 and len(lines) > 2 and all(line[:1] == "{" for line in lines[:2])
    number = draw.randrange(len(lines) - 1) if wide else 0
    text = lines[number] if wide else "\n".join(lines)
    try:
        value = at_random(json.loads(text), draw, lambda old: draw.choice(WRONG))
    except ValueError:
        return draw.choice(BYTES)(data, draw)
    lines[number if wide else slice(None)] = json.dumps(value) if wide else [json.dumps(value)]
    return bytearray("\n".join(lines).encode("utf-8"))


def move_lines(data: bytearray, draw: random.Random) -> bytearray:
    """A line twice, left out, or in another place."""
    lines = bytes(data).split(b"\n")
    taken = lines.pop(draw.randrange(len(lines)))
    for _ in range(draw.randint(0, 2)):
        lines.insert(draw.randrange(len(lines) + 1), taken)
    return bytearray(b"\n".join(lines))


TEXT = (*BYTES, wrong_value, wrong_value, wrong_value, wrong_value, move_lines, move_lines)


def damaged(data: bytes, number: int, kind: str, *, text: bool) -> bytes:
    """Damage of a number: the same bytes in every run.

    Args:
        data: what was written; at least one byte.
        number: of the damage.
        kind: of the file.
        text: whether it is also damaged as JSON and as lines.
    """
    draw = random.Random(f"{kind}/{number}")
    return bytes(draw.choice(TEXT if text else BYTES)(bytearray(data), draw))
