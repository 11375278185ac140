"""9x9 Sudoku with one solution: `sudoku` is solvable by singles, `sudoku-hard` is not."""

import random
from collections.abc import Mapping
from dataclasses import replace

from models.complaints import shown
from train.tasks.puzzles.puzzle import puzzle
from train.tasks.puzzles.sudoku_grid import UNITS, Grid, dig, draw_solution, solvable_by_singles
from train.tasks.task import Example

GIVENS = 30
HARD_GIVENS = (24, 30)
DIGITS = "0123456789"
ALLOWED = frozenset(DIGITS)


def parse(prompt: str) -> Grid:
    """Read a prompt of 81 digits, 0 = blank.

    Raises:
        ValueError: if it is not 81 characters from 0 to 9.
    """
    return [int(character) for character in whole(prompt)]


def whole(prompt: str) -> str:
    """The prompt itself; refuses what is not 81 characters from 0 to 9.

    Raises:
        ValueError: in one sentence.
    """
    if len(prompt) != 81 or not ALLOWED.issuperset(prompt):
        raise ValueError(f"sudoku prompt must be 81 digits, 0 = blank, got {len(prompt)} characters: {shown(prompt)}")
    return prompt


def spell(grid: Grid) -> str:
    """Write a grid as 81 digits."""
    return "".join(map(str, grid))


def make(rng: random.Random) -> Example:
    """Draw a puzzle with 30 givens that singles solve."""
    while True:
        solution = draw_solution(rng)
        grid = dig(rng, solution, GIVENS, singles=True)
        if sum(map(bool, grid)) == GIVENS:
            return Example(spell(grid), spell(solution))


def make_hard(rng: random.Random) -> Example:
    """Draw a puzzle with 24 to 30 givens and one solution that singles do not solve."""
    while True:
        solution = draw_solution(rng)
        grid = dig(rng, solution, rng.randint(*HARD_GIVENS), singles=False)
        if sum(map(bool, grid)) <= HARD_GIVENS[1] and not solvable_by_singles(grid):
            return Example(spell(grid), spell(solution))


def vary(rng: random.Random, example: Example) -> Example:
    """Permute bands, rows within bands, stacks and columns within stacks, and transpose or not."""
    rows, columns = ([3 * band + i for band in rng.sample(range(3), 3) for i in rng.sample(range(3), 3)] for _ in "rc")
    order = [9 * row + column for row in rows for column in columns]
    if rng.random() < 0.5:
        order = [cell % 9 * 9 + cell // 9 for cell in order]
    prompt, response = ("".join(text[cell] for cell in order) for text in (example.prompt, example.response))
    return Example(prompt, response)


def canonical(prompt: str) -> str:
    """Name the instance by its givens, relabelled 1, 2, ... in order of first appearance."""
    order = "".join(dict.fromkeys("0" + whole(prompt)))
    return prompt.translate(str.maketrans(order, DIGITS[: len(order)]))


def check(example: Example, text: str) -> bool:
    """Accept a complete valid grid that keeps the givens; where the solution is unique, that is the reference."""
    whole(example.prompt)
    if len(text) != 81 or set(text) - set("123456789"):
        return False
    kept = all(given in ("0", digit) for given, digit in zip(example.prompt, text, strict=True))
    return kept and all(len({text[cell] for cell in unit}) == 9 for unit in UNITS)


def _flagged_easy(record: Mapping[str, object]) -> bool:
    return record.get("singles", 1) == 1


def _flagged_hard(record: Mapping[str, object]) -> bool:
    return record.get("singles", 0) == 0


SUDOKU = replace(
    puzzle("sudoku", 81, 81, unique_answer=True, make=make, canonical=canonical, check=check),
    keeps=_flagged_easy,
    vary=vary,
)
SUDOKU_HARD = replace(SUDOKU, name="sudoku-hard", make=make_hard, keeps=_flagged_hard)
