"""The symmetries of Sudoku as index gathers over a batch of token rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class SudokuSymmetry:
    """Relabel digits and move rows, columns and bands, the same in the puzzle and its solution.

    Args:
        cells: columns of a token row that hold the grid, ``[G, 81]``: one line for the puzzle, one for the solution.
        digits: token ids of the digits 1..9, ``[9]``; any other token (the blank) stays itself.
        vocabulary: number of token ids.
    """

    cells: Int[Tensor, "G cells"]
    digits: Int[Tensor, " nine"]
    vocabulary: int

    def __post_init__(self) -> None:
        if self.cells.shape[-1] != 81 or self.digits.shape != (9,):
            raise ValueError(
                f"cells must be [G, 81] and digits [9], got {tuple(self.cells.shape)} and {tuple(self.digits.shape)}"
            )

    def __call__(self, tokens: Int[Tensor, "B L"], generator: torch.Generator) -> Int[Tensor, "B L"]:
        """Apply one random symmetry to each row.

        Args:
            tokens: ``[B, L]`` token ids, int64.
            generator: source of randomness, on the device of the tokens.

        Returns:
            ``[B, L]``; tokens outside the cells are unchanged.
        """
        grids = tokens[:, self.cells]
        moved = grids.gather(2, draw_moves(tokens.shape[0], generator)[:, None].expand_as(grids))
        renamed = draw_names(tokens.shape[0], self.digits, self.vocabulary, generator).gather(1, moved.flatten(1))
        result = tokens.clone()
        result[:, self.cells.flatten()] = renamed
        return result


def draw_names(rows: int, digits: Int[Tensor, "9"], vocabulary: int, generator: torch.Generator) -> Int[Tensor, "B V"]:
    """Draw for each row a table ``[vocabulary]`` that permutes the digits and keeps all else.

    Args:
        rows: B.
        digits: ids of the nine digits.
        vocabulary: its size V.
        generator: of the draws.
    """
    names = torch.arange(vocabulary, device=digits.device).repeat(rows, 1)
    order = torch.rand(rows, 9, generator=generator, device=digits.device).argsort(1)
    names[:, digits] = digits[order]
    return names


def draw_moves(rows: int, generator: torch.Generator) -> Int[Tensor, "B 81"]:
    """Draw for each row where each of the 81 cells comes from: bands, lines within bands, and transposition."""
    device = generator.device
    lines = []
    for _ in range(2):
        bands = torch.rand(rows, 3, generator=generator, device=device).argsort(1)
        inner = torch.rand(rows, 3, 3, generator=generator, device=device).argsort(2)
        lines.append((3 * bands[:, :, None] + inner).flatten(1))
    moves = 9 * lines[0][:, :, None] + lines[1][:, None, :]
    flip = torch.rand(rows, generator=generator, device=device) < 0.5
    return torch.where(flip[:, None, None], moves.mT, moves).flatten(1)


def find_cells(tokens: Int[Tensor, "N L"], *, canvas: int, digits: Int[Tensor, "9"], blank: int) -> Int[Tensor, "2 81"]:
    """Find the grid columns of a Sudoku task: those where every row holds a digit or a blank.

    Args:
        tokens: ``[N, L]`` some rows, the canvas in the last columns.
        canvas: length of the canvas.
        digits: token ids of 1..9.
        blank: token id of an empty cell.

    Returns:
        ``[2, 81]`` columns: puzzle, solution.

    Raises:
        ValueError: if prompt or canvas has not exactly 81 such columns.
    """
    cell = torch.isin(tokens, torch.cat([digits, digits.new_tensor([blank])])).all(0).nonzero().flatten()
    start = tokens.shape[1] - canvas
    halves = [cell[cell < start], cell[cell >= start]]
    if [part.numel() for part in halves] != [81, 81]:
        counts = [part.numel() for part in halves]
        raise ValueError(f"prompt and canvas of a symmetric task must have 81 grid columns each, got {counts}")
    return torch.stack(halves)
