"""Finds the program in what a model wrote: out of its fences, without prose, examples and a second answer."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

from train.tasks.benchmarks.benchmark import until

FENCE = re.compile(r"```[ \t]*[\w+-]*[ \t]*\n(.*?)(?:\n?[ \t]*```|\Z)", re.DOTALL)
STOPS = re.compile(r"^(?:if __name__|print\s*\(|assert\b)", re.MULTILINE)  # examples behind the function
HEAD = re.compile(r"(?:async def|def|class) ")
PROGRAM = re.compile(r"(?:async def|def|class|import|from|@|#|[A-Za-z_][\w.\[\]]*(?:\s*:\s*[^=\n]+)?\s*=|[)\]}\"'])")


@dataclass(frozen=True)
class Code:
    """A piece of a reply.

    Attributes:
        text: the code.
        whole: it holds the function asked for, head and all; otherwise it goes on with a function that was begun.
    """

    text: str
    whole: bool


def find_code(reply: str, names: tuple[str, ...]) -> Code:
    """The code of a reply.

    Args:
        reply: what the model wrote.
        names: functions or classes that count as the one asked for.
    """
    reply = until(reply.replace("\r\n", "\n"), "[DONE]").replace("[BEGIN]", "").expandtabs(4)
    known = "|".join(map(re.escape, names))
    head = re.compile(rf"^[ ]*(?:(?:async def|def|class)[ ]+(?:{known})\b|(?:{known})\s*=[^=])", re.MULTILINE)
    blocks = [match[1] for match in FENCE.finditer(reply)]
    with_head = [block for block in blocks if head.search(block)]
    if with_head:
        return Code(_until_examples(textwrap.dedent(with_head[-1]), head), True)
    before = reply.partition("```")[0]
    if head.search(before):
        return Code(_only_program(textwrap.dedent(before), head), True)
    if (before.strip() and before.startswith((" ", "\n "))) or not blocks:
        return Code(body(before), False)
    return Code(body(blocks[0]), False)


def body(text: str) -> str:
    """The rest of a function, indented, without what follows it; the first indent, or all of it, may have been dropped."""
    lines = text.strip("\n").splitlines() or [""]
    below = next((len(line) - len(line.lstrip()) for line in lines[1:] if line.strip()), 0)
    opens = lines[0].rstrip().endswith((":", "(", "[", "{", ",", "\\"))
    if not lines[0].startswith(" ") and below > 4 * opens:
        lines[0] = " " * (below - 4 * opens) + lines[0]
    if lines[0].startswith(" "):
        end = next((n for n, line in enumerate(lines) if line.strip() and not line.startswith(" ")), len(lines))
        return "\n".join(lines[:end]) + "\n"
    return textwrap.indent("\n".join(lines[: _end_of_flat(lines)]), "    ") + "\n"


def _end_of_flat(lines: list[str]) -> int:
    """Where a body without indents ends: behind its own `return`, else before examples or another function."""
    returns = next((n for n, line in enumerate(lines) if re.match(r"return\b", line)), None)
    if returns is not None:
        inside = (")", "]", "}", " ")
        return next((n for n in range(returns + 1, len(lines)) if not lines[n].startswith(inside)), len(lines))
    return next((n for n, line in enumerate(lines) if STOPS.match(line) or HEAD.match(line)), len(lines))


def _until_examples(code: str, head: re.Pattern[str]) -> str:
    found = head.search(code)
    stop = STOPS.search(code, found.end() if found else 0)
    return code[: stop.start()] if stop else code


def _only_program(text: str, head: re.Pattern[str]) -> str:
    """The lines of an unfenced reply that are code: from the first to the last that looks like it, around the function."""
    inside, kept = False, list[str]()
    for line in _until_examples(text, head).splitlines():
        code = not line.strip() or line.startswith(" ") or PROGRAM.match(line) is not None
        if not inside and (not line.strip() or line.startswith(" ") or not code):
            continue
        if not code:
            if any(head.match(one) for one in kept):
                break
            kept, inside = [], False
            continue
        inside = True
        kept.append(line)
    return "\n".join(kept) + "\n"
