"""Sudoku arithmetic on bit masks: singles, search, random grids, and digging holes.

A grid is a list of 81 digits, 0 = blank. A cell's candidates are a mask of nine bits, digit d being bit d-1.
"""

import random

Grid = list[int]

ALL = 0b111111111
_ROWS = [[9 * r + c for c in range(9)] for r in range(9)]
_COLUMNS = [[9 * r + c for r in range(9)] for c in range(9)]
_BOXES = [[9 * (b // 3 * 3 + i // 3) + b % 3 * 3 + i % 3 for i in range(9)] for b in range(9)]
UNITS = [tuple(unit) for unit in _ROWS + _COLUMNS + _BOXES]
_UNITS_OF = [[unit for unit in UNITS if cell in unit] for cell in range(81)]
PEERS = [tuple({peer for unit in _UNITS_OF[cell] for peer in unit} - {cell}) for cell in range(81)]


def fill_singles(grid: Grid, *, until: int | None = None) -> list[int] | None:
    """Fill in naked and hidden singles until none is left, or until the cell `until` is known.

    Returns:
        The candidate masks, a known cell's being its single bit; None if the grid is contradictory.
    """
    masks = [ALL] * 81
    for cell, digit in enumerate(grid):
        if digit and not assign(masks, cell, 1 << digit - 1):
            return None
    while until is None or masks[until] & masks[until] - 1:
        singles = _hidden_singles(masks)
        if singles is None:
            return None
        if not singles:
            break
        for cell, bit in singles:
            if not assign(masks, cell, bit):
                return None
    return masks


def assign(masks: list[int], cell: int, bit: int) -> bool:
    """Write one digit and, in place, all naked singles that follow; False if a cell is left without a candidate."""
    if not masks[cell] & bit:
        return False
    stack = []
    if masks[cell] != bit:
        masks[cell] = bit
        stack.append(cell)
    while stack:
        known = stack.pop()
        bit = masks[known]
        for peer in PEERS[known]:
            mask = masks[peer]
            if mask & bit:
                mask ^= bit
                if not mask:
                    return False
                masks[peer] = mask
                if not mask & mask - 1:
                    stack.append(peer)
    return True


def _hidden_singles(masks: list[int]) -> list[tuple[int, int]] | None:
    """Find the cells that alone can hold a digit in some unit; None if a unit has no room for a digit, or a
    cell is the only room for two."""
    singles = []
    for unit in UNITS:
        once = twice = known = 0
        for cell in unit:
            mask = masks[cell]
            twice |= once & mask
            once |= mask
            if not mask & mask - 1:
                known |= mask
        if once != ALL:
            return None
        single = once & ~twice & ~known
        if single:
            singles += [(cell, masks[cell] & single) for cell in unit if masks[cell] & single]
    return None if any(bits & bits - 1 for _, bits in singles) else singles


def solvable_by_singles(grid: Grid) -> bool:
    """Say whether naked and hidden singles alone complete the grid."""
    masks = fill_singles(grid)
    return masks is not None and not any(mask & mask - 1 for mask in masks)


def search(masks: list[int], *, rng: random.Random | None = None) -> Grid | None:
    """Complete a grid by backtracking on a cell with the fewest candidates, in random order where `rng` is given."""
    singles: list[tuple[int, int]] | None = [(0, 0)]
    while singles:
        singles = _hidden_singles(masks)
        if singles is None or not all(assign(masks, cell, bit) for cell, bit in singles):
            return None
    open_cells = [cell for cell in range(81) if masks[cell] & masks[cell] - 1]
    if not open_cells:
        return [mask.bit_length() for mask in masks]
    if rng is not None:
        rng.shuffle(open_cells)
    cell = min(open_cells, key=lambda c: masks[c].bit_count())
    bits = [1 << i for i in range(9) if masks[cell] >> i & 1]
    if rng is not None:
        rng.shuffle(bits)
    for bit in bits:
        trial = list(masks)
        solution = search(trial, rng=rng) if assign(trial, cell, bit) else None
        if solution is not None:
            return solution
    return None


def draw_solution(rng: random.Random) -> Grid:
    """Draw a full grid: three random diagonal boxes, completed by randomised backtracking."""
    while True:
        masks = [ALL] * 81
        ok = True
        for box in (0, 4, 8):
            digits = rng.sample(range(9), 9)
            ok = ok and all(assign(masks, cell, 1 << digit) for cell, digit in zip(_BOXES[box], digits, strict=True))
        solution = search(masks, rng=rng) if ok else None
        if solution is not None:
            return solution


def dig(rng: random.Random, solution: Grid, givens: int, *, singles: bool) -> Grid:
    """Blank cells in random order down to `givens`, or as far as the rule lets it.

    Args:
        rng: source of the order.
        solution: a full grid.
        givens: how many digits to leave.
        singles: keep the grid solvable by singles; otherwise keep its solution unique.
    """
    grid, left = list(solution), 81
    for cell in rng.sample(range(81), 81):
        if left == givens:
            break
        grid[cell] = 0
        if derives(grid, cell) or (not singles and forces(grid, cell, solution[cell])):
            left -= 1
        else:
            grid[cell] = solution[cell]
    return grid


def derives(grid: Grid, cell: int) -> bool:
    """Say whether singles find this cell; they are monotone in the givens, so a dug grid stays solvable by them."""
    masks = fill_singles(grid, until=cell)
    return masks is not None and not masks[cell] & masks[cell] - 1


def forces(grid: Grid, cell: int, digit: int) -> bool:
    """Say whether no completion of the grid holds another digit in this cell."""
    masks = fill_singles(grid)
    if masks is None:
        return True
    others = masks[cell] & ~(1 << digit - 1)
    for bit in (1 << i for i in range(9) if others >> i & 1):
        trial = list(masks)
        if assign(trial, cell, bit) and search(trial) is not None:
            return False
    return True
