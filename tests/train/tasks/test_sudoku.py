"""Sudoku: givens, one solution, singles, symmetry."""

import random
from itertools import islice
from pathlib import Path

import pytest

from train.tasks import TASKS, Example
from train.tasks.puzzles.sudoku import parse, spell, vary
from train.tasks.puzzles.sudoku_grid import (
    ALL,
    assign,
    dig,
    draw_solution,
    fill_singles,
    forces,
    search,
    solvable_by_singles,
)

EASY = Example(  # a puzzle of our generator
    "061950000005200080009080057380000002400000705000420860100800000950130000008002010",
    "861957324735264189249381657386715492412698735597423861123879546954136278678542913",
)
HARD = Example("061950000005200080009080007380000002400600705000420800100800000050130000000000900", EASY.response)


def _meet(a: int, b: int) -> bool:
    return a // 9 == b // 9 or a % 9 == b % 9 or (a // 27, a % 9 // 3) == (b // 27, b % 9 // 3)


SEEN_FROM = [[other for other in range(81) if other != cell and _meet(cell, other)] for cell in range(81)]


def solutions(grid: list[int], limit: int = 2) -> int:
    """Count completions by plain backtracking, with no deduction shared with the code under test."""
    options = [
        (cell, set(range(1, 10)) - {grid[peer] for peer in SEEN_FROM[cell]}) for cell in range(81) if not grid[cell]
    ]
    if not options:
        return 1
    cell, digits = min(options, key=lambda option: len(option[1]))
    count = 0
    for digit in digits:
        if count < limit:
            count += solutions([*grid[:cell], digit, *grid[cell + 1 :]], limit - count)
    return count


def test_puzzles_have_the_stated_givens_one_solution_and_difficulty() -> None:
    for name, low, high in (("sudoku", 30, 30), ("sudoku-hard", 24, 30)):
        for example in islice(TASKS[name].generate("train", seed=5), 2):
            grid = parse(example.prompt)
            assert low <= sum(map(bool, grid)) <= high
            assert solutions(grid) == 1
            assert solvable_by_singles(grid) is (name == "sudoku")


@pytest.mark.parametrize("name", ["sudoku", "sudoku-hard"])
def test_any_valid_completion_that_keeps_the_givens_is_right(name: str) -> None:
    check, answer = TASKS[name].check, EASY.response
    for puzzle in (EASY, HARD, Example(EASY.prompt, "")):
        assert check(puzzle, answer)
        assert not check(puzzle, answer[:-1])
        assert not check(puzzle, answer + "3")
        assert not check(puzzle, answer[:-1] + "0")
        assert not check(puzzle, answer[1::-1] + answer[2:])
    relabelled = answer.translate(str.maketrans("123456789", "234567891"))
    assert not check(EASY, relabelled)  # valid, but the givens differ
    assert check(Example("0" * 81, answer), relabelled)


@pytest.mark.parametrize("swap", [(0, 1), (0, 9), (0, 40)])
def test_each_kind_of_unit_is_checked(swap: tuple[int, int]) -> None:
    cells = list(EASY.response)
    cells[swap[0]], cells[swap[1]] = cells[swap[1]], cells[swap[0]]
    assert not TASKS["sudoku"].check(Example("0" * 81, ""), "".join(cells))


def test_latin_squares_with_bad_boxes_are_wrong() -> None:
    latin = "".join("".join(str((row + column) % 9 + 1) for column in range(9)) for row in range(9))
    assert not TASKS["sudoku"].check(Example("0" * 81, ""), latin)


def test_singles_are_hidden_and_naked_and_stop_there() -> None:
    assert solvable_by_singles(parse(EASY.prompt))
    assert not solvable_by_singles(parse(HARD.prompt))
    masks = fill_singles(parse(EASY.prompt))
    assert masks is not None
    assert spell([mask.bit_length() for mask in masks]) == EASY.response


def test_contradictions_are_seen() -> None:
    assert fill_singles([1, 1, *[0] * 79]) is None
    assert not solvable_by_singles([1, 1, *[0] * 79])
    masks = [ALL] * 81
    assert assign(masks, 0, 1)
    assert not assign(masks, 1, 1)
    assert search([ALL] * 81) is not None
    one_room_for_two = [ALL] + [ALL & ~0b11] * 8 + [ALL] * 72  # 1 and 2 fit only the first cell of the first row
    assert search(one_room_for_two) is None
    no_room_for_one = [ALL & ~1] * 9 + [ALL] * 72
    assert search(no_room_for_one) is None


def test_forced_cells_are_told_from_free_ones() -> None:
    grid = parse(HARD.prompt)
    blank = grid.index(0)
    assert forces(grid, blank, int(HARD.response[blank]))
    assert not forces(grid, blank, int(HARD.response[blank]) % 9 + 1)
    assert not forces([0] * 81, 0, 1)


def test_solution_grids_are_valid_and_more_than_relabellings_of_one() -> None:
    rng = random.Random(0)
    grids = [spell(draw_solution(rng)) for _ in range(12)]
    assert all(TASKS["sudoku"].check(Example("0" * 81, ""), grid) for grid in grids)
    assert len({TASKS["sudoku"].canonical(grid) for grid in grids}) == len(grids)


def test_digging_stops_at_the_number_of_givens() -> None:
    rng = random.Random(1)
    solution = draw_solution(rng)
    assert sum(map(bool, dig(rng, solution, 81, singles=True))) == 81
    grid = dig(rng, solution, 40, singles=True)
    assert sum(map(bool, grid)) == 40
    assert all(given in (0, digit) for given, digit in zip(grid, solution, strict=True))


def test_a_symmetry_keeps_the_puzzle_and_its_difficulty() -> None:
    rng = random.Random(2)
    for example, easy in ((EASY, True), (HARD, False)):
        twins = [vary(rng, example) for _ in range(8)]
        assert len({TASKS["sudoku"].canonical(twin.prompt) for twin in twins}) == len(twins)
        for twin in twins:
            assert TASKS["sudoku"].check(twin, twin.response)
            assert solvable_by_singles(parse(twin.prompt)) is easy


def test_the_singles_flag_of_a_file_says_which_task_a_row_is_of(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [f'{{"quiz": "{e.prompt}", "solution": "{e.response}", "singles": {s}}}' for e, s in ((EASY, 1), (HARD, 0))]
    path.write_text("\n".join([*lines, f'{{"quiz": "{EASY.prompt}"}}']))
    unflagged = Example(EASY.prompt, "")
    assert list(TASKS["sudoku"].read(path)) == [EASY, unflagged]
    assert list(TASKS["sudoku-hard"].read(path)) == [HARD, unflagged]
