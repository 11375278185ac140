"""Sudoku symmetries keep a puzzle a puzzle of the same solution."""

from __future__ import annotations

import pytest
import torch

from train.base.symmetry import SudokuSymmetry, draw_moves, find_cells

DIGITS = torch.arange(11, 20)
BLANK, END = 10, 1


def rows(count: int) -> torch.Tensor:
    """Puzzle, separator 2, solution, end: the pattern solution with every third cell given."""
    solution = torch.tensor([(3 * (r % 3) + r // 3 + c) % 9 for r in range(9) for c in range(9)]) + 11
    puzzle = torch.where(torch.arange(81) % 3 == 0, solution, torch.tensor(BLANK))
    row = torch.cat([puzzle, torch.tensor([2]), solution, torch.tensor([END])])
    return row.repeat(count, 1)


def symmetry() -> SudokuSymmetry:
    return SudokuSymmetry(find_cells(rows(2), canvas=82, digits=DIGITS, blank=BLANK), DIGITS, 24)


def test_cells_are_found_around_other_tokens() -> None:
    cells = find_cells(rows(2), canvas=82, digits=DIGITS, blank=BLANK)
    assert cells.tolist() == [list(range(81)), list(range(82, 163))]
    with pytest.raises(ValueError, match=r"81 grid columns each, got \[80, 81\]"):
        find_cells(rows(2)[:, 1:], canvas=82, digits=DIGITS, blank=BLANK)


def test_every_line_and_box_stays_a_permutation_and_givens_agree() -> None:
    out = symmetry()(rows(64), torch.Generator().manual_seed(0))
    puzzle, solution = out[:, :81], out[:, 82:163]
    grid = solution.view(-1, 9, 9)
    boxes = grid.view(-1, 3, 3, 3, 3).transpose(2, 3).reshape(-1, 9, 9)
    for lines in (grid, grid.mT, boxes):
        assert torch.equal(lines.sort(-1).values, DIGITS.expand_as(lines))
    given = puzzle != BLANK
    assert given.sum(1).tolist() == [27] * 64
    assert torch.equal(puzzle[given], solution[given])
    assert (out[:, 81] == 2).all()
    assert (out[:, 163] == END).all()
    assert len(out.unique(dim=0)) == 64


def test_both_orientations_occur_and_moves_are_permutations() -> None:
    moves = draw_moves(32, torch.Generator().manual_seed(0))
    assert torch.equal(moves.sort(1).values, torch.arange(81).expand(32, 81))
    rows_stay = (moves[:, 0] // 9) == (moves[:, 1] // 9)
    assert 0 < rows_stay.sum() < 32


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="cells"):
        SudokuSymmetry(torch.zeros(2, 80, dtype=torch.long), DIGITS, 24)
