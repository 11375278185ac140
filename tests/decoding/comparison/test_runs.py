"""What is counted of a finished decode, and in which order cells run."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from decoding.comparison.arms import Arm, Cell, select
from decoding.comparison.problems import Problems, judge_of
from decoding.comparison.records.ledger import COLUMNS, Ledger
from decoding.comparison.runner import make_runner
from decoding.comparison.runs import clean_commits, interleave, rounds_with
from decoding.state import DecodeState, Reason, start
from models.toys.toy import TableDenoiser


def test_the_schedule_covers_everything_once() -> None:
    schedule = list(interleave(5, 3, 2))
    assert sorted(schedule) == [(chunk, job) for chunk in (0, 2, 4) for job in range(3)]
    assert schedule[:6] == [(0, 0), (0, 1), (0, 2), (2, 1), (2, 2), (2, 0)]


def finished(committed_round: list[int], reason: list[int], tokens: list[int]) -> DecodeState:
    state = start(torch.tensor([[9, *tokens]]), gen_length=6, block_length=6, mask_id=2, eos_id=None)
    return replace(
        state,
        tokens=torch.tensor([[9, *tokens]]),
        masked=torch.zeros_like(state.masked),
        committed_round=torch.tensor([[0, *committed_round]]),
        reason=torch.tensor([[0, *reason]]),
    )


def test_clean_commits_end_with_the_round_of_the_first_error() -> None:
    exploit, forced, end = int(Reason.EXPLOIT), int(Reason.FORCED), int(Reason.END)
    state = finished([1, 1, 2, 2, 3, 3], [exploit, forced, exploit, exploit, exploit, end], [1, 1, 1, 0, 0, 0])
    clean, wrong = clean_commits(state, torch.tensor([[1, 1, 1, 1, 1, 1]]))
    assert (clean.tolist(), wrong.tolist()) == ([3], [1])  # rounds 1 and 2; round 3 came after an error
    clean, wrong = clean_commits(state, torch.tensor([[1, 1, 1, 1, 1, -1]]))
    assert (clean.tolist(), wrong.tolist()) == ([-1], [-1])


@pytest.mark.parametrize(
    ("reasons", "tokens", "found"),
    [
        (
            "FORCED CASCADE CASCADE",
            [0, 1, 0],
            (2, 0),
        ),  # the guess is wrong, and what follows from it is no state's without error
        ("FORCED CASCADE CASCADE", [1, 0, 1], (4, 1)),  # the cascade itself is wrong
        ("EXPLOIT CASCADE CASCADE", [0, 0, 1], (3, 1)),
        ("EXPLOIT EXPLOIT CASCADE", [1, 0, 0], (4, 1)),
    ],
)
def test_a_cascade_behind_a_wrong_commit_of_its_round_is_not_clean(reasons, tokens, found) -> None:
    """The first round is right and has a cascade of its own; the second is the one in question; the third comes after an error.

    Beside it lies a row that is led astray in its first round.
    """
    committed_by = [Reason.EXPLOIT, Reason.CASCADE, *(Reason[r] for r in reasons.split()), Reason.EXPLOIT]
    other = [Reason.FORCED, *[Reason.CASCADE] * 5]
    rows = [
        finished([1, 1, 2, 2, 2, 3], [int(r) for r in committed_by], [1, 1, *tokens, 0]),
        finished([1, 1, 1, 1, 1, 2], [int(r) for r in other], [0] * 6),
    ]
    for order in (rows, rows[::-1]):
        both = {
            name: torch.cat([getattr(row, name) for row in order]) for name in ("tokens", "committed_round", "reason")
        }
        clean, wrong = clean_commits(replace(rows[0], **both), torch.ones(2, 6, dtype=torch.long))
        assert sorted(zip(clean.tolist(), wrong.tolist(), strict=True)) == [(0, 0), found]


def test_idle_rounds_are_those_without_an_accepted_commit() -> None:
    accepted = torch.tensor([[True, True, False, True], [False, False, False, False]])
    rounds = torch.tensor([[1, 1, 2, 3], [1, 2, 3, 4]])
    assert rounds_with(accepted, rounds).tolist() == [2, 0]


CELL = Cell("sequential", "sequential", None, {})
HEADER = {"task": "x", "seed": 0}
SIZES = {"dev": 2, "test": 4}


def figures(prompts: int) -> np.ndarray:
    return np.ones((prompts, len(COLUMNS)))


def kept(tmp_path, *changes: Callable[[list[str]], list[str]]) -> Path:
    """A ledger of two prompts, its lines changed."""
    path = tmp_path / "x.jsonl"
    Ledger(path, HEADER, sizes=SIZES).add("test", CELL, [0, 1], figures(2))
    lines = path.read_text().splitlines(keepends=True)
    for change in changes:
        lines = change(lines)
    path.write_text("".join(lines))
    return path


DAMAGE = [
    (lambda lines: [*lines, lines[2]], "line 4: prompt 1 of cell .* must be there once in split test, got it again"),
    (lambda lines: [*lines, lines[2].replace('"rounds": 1.0', '"rounds": 2.0')], "must be there once"),
    (lambda lines: [*lines, lines[2].replace('"prompt": 1', '"prompt": 4')], "prompt must be one of the 4 of split test, got 4"),
    (lambda lines: [*lines, lines[2].replace('"prompt": 1', '"prompt": true')], "prompt must be one of the 4 .* got True"),
    (lambda lines: [*lines, lines[2].replace('"prompt": 1', '"prompt": -1')], "prompt must be one of"),
    (lambda lines: [*lines, lines[2].replace('"prompt": 1', '"prompt": "2"')], "prompt must be one of"),
    (lambda lines: [*lines, lines[2].replace('"split": "test"', '"split": "train"')], "prompt must be one of the 0 of split train"),
    (lambda lines: [*lines[:2], lines[2].replace('"rounds": 1.0', '"rounds": NaN')], "line 3: rounds must be a number from 0 to"),
    (lambda lines: [*lines[:2], re.sub('"right": [^,]*', '"right": 7.0', lines[2])], "right must be a number from 0 to 1"),
    (lambda lines: [*lines[:2], re.sub('"clean": [^,]*', '"clean": Infinity', lines[2])], "line 3: clean must be a number"),
    (lambda lines: [*lines[:2], re.sub('"wrong": [^,]*', '"wrong": Infinity', lines[2])], "line 3: wrong must be a number"),
    (lambda lines: [*lines[:2], re.sub('"bits": [^,]*', '"bits": Infinity', lines[2])], "line 3: bits must be a number"),
    (lambda lines: [*lines[:2], lines[2].replace('"rounds": 1.0', '"rounds": Infinity')], "rounds must be a number"),
    (lambda lines: [*lines[:2], lines[2].replace('"rounds": 1.0', '"rounds": null')], "rounds must be a number"),
    (lambda lines: [*lines[:2], lines[2].replace('"rounds": 1.0', '"rounds": "1"')], "rounds must be a number"),
    (lambda lines: [*lines[:2], lines[2].replace('"rounds": 1.0', '"rounds": -1.0')], "rounds must be a number"),
    (lambda lines: [*lines[:2], lines[2].replace('"rounds"', '"turns"')], "line 3 must be a line of a comparison"),
    (lambda lines: ["[]\n", *lines[1:]], "line 1 must be the header of a comparison"),
    (lambda lines: ["{}\n", *lines[1:]], "line 1: a comparison must begin with its header"),
    (lambda lines: lines[1:], "line 1: a comparison must begin with its header"),
    (lambda lines: ["[" * 100_000 + "\n", *lines[1:]], "line 1 must be the header of a comparison"),
    (lambda lines: [*lines, "\ufeff\n"], "line 4 must be a line of a comparison"),
    (lambda lines: [lines[0].replace('"seed": 0', '"seed": 1'), *lines[1:]], "seed must be 1 to go on with"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "sentence"), DAMAGE, ids=[sentence[:50] for _, sentence in DAMAGE])
def test_a_ledger_of_doubled_foreign_or_impossible_lines_is_refused_by_name(tmp_path, damage, sentence) -> None:
    path = kept(tmp_path, damage)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=sentence) as refused:
        Ledger(path, HEADER, sizes=SIZES)
    assert "x.jsonl" in str(refused.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("cut", [0, 1, 10, -1, -40, -450])
def test_a_ledger_cut_anywhere_goes_on_with_every_prompt_once(tmp_path, cut) -> None:
    whole = kept(tmp_path).read_bytes()
    path = tmp_path / "x.jsonl"
    path.write_bytes(whole[:cut])
    ledger = Ledger(path, HEADER, sizes=SIZES)
    assert path.read_bytes() == whole[:cut]  # nothing is written while it is judged
    ledger.add("test", CELL, [0, 1], figures(2))
    ledger.add("test", CELL, [2, 3], figures(2))
    again = Ledger(path, HEADER, sizes=SIZES)
    assert sorted(again.lines["test", CELL.key]) == [0, 1, 2, 3]
    assert len(path.read_text().splitlines()) == 5


def test_a_ledger_writes_nothing_before_its_first_lines(tmp_path) -> None:
    Ledger(tmp_path / "new" / "x.jsonl", HEADER)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "x.jsonl").touch()
    Ledger(tmp_path / "x.jsonl", HEADER).add("dev", CELL, [0], figures(1))
    assert Ledger(tmp_path / "x.jsonl", HEADER).has("dev", CELL, [0])


def test_names_given_twice_are_refused() -> None:
    arm = Arm("a", "headless", "sequential")
    with pytest.raises(ValueError, match=r"^names of arms must differ, got a twice$"):
        select([arm, arm], None, has_head=False)
    with pytest.raises(ValueError, match=r"^arms must differ, got a twice$"):
        select([arm], "a, a", has_head=False)


def test_figures_of_another_judge_or_number_format_are_not_gone_on_with(tmp_path):
    """The prompts are the same; what says that an answer is right, or how products are rounded, is not."""
    model = TableDenoiser(torch.zeros(8, 6), mask_id=5, eos_id=4)
    problems = Problems("bits", ("0",), ("1",), 4, 4, judge=judge_of(False, [""]))
    how = {"heads": None, "batch_size": 1, "seed": 0, "progress": False, "out": tmp_path}

    def opened(problems):
        return make_runner(model, problems, lambda prompt, text: False, **how)

    runner = opened(problems)
    runner.ledger.add("dev", Cell("a", "sequential", None, {}), [0], np.zeros((1, len(COLUMNS))))
    opened(problems)
    with pytest.raises(ValueError, match="judge"):
        opened(replace(problems, judge=judge_of(True, ["7"])))
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(ValueError, match="products"):
            opened(problems)
    finally:
        torch.set_float32_matmul_precision("highest")
