"""Finds the program in what a model wrote: out of its fences, without prose, examples and a second answer."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from train.tasks.benchmarks.benchmark import until

FENCE = re.compile(  # whatever its first line says; a fence that stands deeper by four is part of a docstring
    r"(?:^([ \t]*))?(`{3,}|~{3,})[ \t]*[^`\n]*\n"
    r"(.*?)(?:(?:\n|(?<=\n))(?:\1 {0,3}| {0,3})\2|(?<=[^\s`~])[ \t]*\2|\Z)",
    re.DOTALL | re.MULTILINE,
)
FUTURE = re.compile(r"^from __future__ import (?:\([^)]*\)|[^\n#;]*)[^\n]*\n?", re.MULTILINE)
SHELL = re.compile(r"^[!%].*\n?", re.MULTILINE)  # commands of a notebook
DEFINING = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
SCRIPT = {"exit", "quit", "SystemExit", "sys.exit", "os._exit", "sys.argv", "unittest.main"}  # names of a script
TRIES = re.compile(r"print$|main$|test")  # functions that a reply calls to try itself out
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
    head = re.compile(
        rf"^[ ]*(?:(?:async def|def|class)[ ]+(?:{known})\b|(?:{known})\s*(?::[^=\n]*)?=[^=])", re.MULTILINE
    )
    blocks = [SHELL.sub("", textwrap.dedent(match[3])) for match in FENCE.finditer(reply)]
    with_head = [block for block in blocks if head.search(block)]
    if with_head:
        main = _without_examples(with_head[-1], head)
        return Code("\n".join([*helpers(main, [one for one in blocks if one not in with_head]), main]), True)
    before = re.split("```|~~~", reply, maxsplit=1)[0]
    if head.search(before):
        return Code(_only_program(textwrap.dedent(before), head), True)
    if (before.strip() and before.startswith((" ", "\n "))) or not blocks:
        return Code(body(before), False)
    return Code(body(blocks[0]), False)


def program(*pieces: str) -> str:
    """Pieces of code as one program; what has to stand at its top (`from __future__ import ...`) does."""
    text = "\n".join(pieces)
    return "".join(found.rstrip("\n") + "\n" for found in dict.fromkeys(FUTURE.findall(text))) + FUTURE.sub("", text)


def helpers(main: str, blocks: Sequence[str]) -> list[str]:
    """What other blocks of a reply define and the main one uses without defining it: imports, helpers, constants.

    Args:
        main: the block of the function asked for.
        blocks: the others; of a name that several define the last definition is taken.
    """
    used, known = _names(main), _defined(main)
    defined = {name: (n, text) for n, block in enumerate(blocks) for name, text in _definitions(block)}
    chosen: dict[str, tuple[int, str]] = {}
    while wanted := (used - known - chosen.keys()) & defined.keys():
        for name in wanted:
            chosen[name] = defined[name]
            used |= _names(defined[name][1])
    everything = [found for name, found in defined.items() if name.startswith("*")]
    return list(dict.fromkeys(text for _, text in sorted({*everything, *chosen.values()})))


def _definitions(block: str) -> Iterator[tuple[str, str]]:
    """(name, statement) of everything that a block defines; `from x import *` under a name of its own."""
    for node in _statements(block):
        if isinstance(node, DEFINING):
            yield from ((name, ast.unparse(node)) for name in _bound(node))


def _bound(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        module = getattr(node, "module", None)
        names = [(one.asname or one.name).partition(".")[0] for one in node.names]
        return [] if module == "__future__" else [f"*{module}" if name == "*" else name for name in names]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)] or [
        name for name in [getattr(node, "name", None)] if name is not None
    ]


def _defined(block: str) -> set[str]:
    return {name for node in _statements(block) for name in _bound(node)}


def _names(block: str) -> set[str]:
    return {one.id for node in _statements(block) for one in ast.walk(node) if isinstance(one, ast.Name)}


def _statements(block: str) -> list[ast.stmt]:
    """The statements of a block, none where it is no Python."""
    try:
        return ast.parse(block).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _without_examples(code: str, head: re.Pattern[str]) -> str:
    """A block without the lines that only try it out: printing, asserting, reading input, or run as a script."""
    tried = [node for node in _statements(code) if _is_example(node)]
    if not tried:
        return _until_examples(code, head)
    lines = code.splitlines()
    for node in tried:
        for number in range(node.lineno - 1, node.end_lineno or node.lineno):
            lines[number] = ""
    return "\n".join(lines) + "\n"


def _is_example(node: ast.stmt) -> bool:
    if isinstance(node, DEFINING[:5]):
        return False
    calls = {one.func.id for one in ast.walk(node) if isinstance(one, ast.Call) and isinstance(one.func, ast.Name)}
    names = set(map(_dotted, ast.walk(node)))
    as_script = isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
    return (
        as_script
        or isinstance(node, ast.Assert)
        or "input" in calls
        or (isinstance(node, ast.Expr) and any(map(TRIES.match, calls)))
        or (isinstance(node, ast.Expr | ast.Raise | ast.Assign | ast.If) and not names.isdisjoint(SCRIPT))
    )


def _dotted(node: ast.AST) -> str:
    """`a` or `a.b` as it stands; of anything else nothing."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


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
    match = head.search(code)
    stop = STOPS.search(code, match.end() if match else 0)
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
