"""The notebook runs from its first cell to its last and prints what is stored in it."""

import ast
import contextlib
import io
import json
from pathlib import Path

NOTEBOOK = json.loads((Path(__file__).parents[1] / "docs" / "first-steps.ipynb").read_text(encoding="utf-8"))
LIMIT = 30_000  # bytes


def run_cell(source: str, names: dict[str, object]) -> str:
    """What a cell prints, and the value of its last line, as a kernel shows them."""
    tree, printed = ast.parse(source), io.StringIO()
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "<cell>", "exec"), names)
        value = None if last is None else eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    return printed.getvalue() + ("" if value is None else repr(value))


def stored(cell: dict) -> str:
    """What the notebook says that a cell gave."""
    shown = [one.get("text") or one["data"]["text/plain"] for one in cell["outputs"]]
    return "".join(line for lines in shown for line in lines)


def test_every_cell_gives_what_is_stored():
    names: dict[str, object] = {"__name__": "__main__"}
    cells = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 5
    for cell in cells:
        assert run_cell("".join(cell["source"]), names) == stored(cell), "".join(cell["source"])[:60]


def test_it_is_small_and_of_a_format_that_tools_read():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert len(json.dumps(NOTEBOOK)) < LIMIT
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
