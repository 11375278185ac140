"""Which setting of a dial is clocked: the boldest at which an arm keeps its accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from decoding.comparison.arms import Arm, Cell
from decoding.names import DIALS


def careful_first(arm: Arm) -> tuple[Cell, ...]:
    """The cells of an arm from the careful end; of a dial that is not among DIALS in the order given.

    Args:
        arm: on its task.
    """
    if arm.dial not in DIALS:
        return arm.cells
    return tuple(sorted(arm.cells, key=lambda cell: cell.dial or 0.0, reverse=DIALS[arm.dial].careful_is_high))


def boldest(cells: Sequence[Cell], holds: Callable[[Cell], bool], *, all_of_them: bool) -> Cell | None:
    """The last cell that holds, None where none does.

    Args:
        cells: from the careful end.
        holds: whether a cell keeps its accuracy; decodes.
        all_of_them: ask every cell; else by bisection, which asks log2 of them and is right where cells that hold come first.
    """
    if all_of_them:
        return next((cell for cell, kept in reversed([(cell, holds(cell)) for cell in cells]) if kept), None)
    low, high = 0, len(cells)
    while low < high:
        middle = (low + high) // 2
        if holds(cells[middle]):
            low = middle + 1
        else:
            high = middle
    return cells[low - 1] if low else None
