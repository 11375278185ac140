"""What is counted of a finished decode, and in which order cells run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from decoding.comparison.runs import clean_commits, interleave, rounds_with
from decoding.state import DecodeState, Reason, start


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
    own = [Reason.EXPLOIT, Reason.CASCADE, *(Reason[r] for r in reasons.split()), Reason.EXPLOIT]
    other = [Reason.FORCED, *[Reason.CASCADE] * 5]
    rows = [
        finished([1, 1, 2, 2, 2, 3], [int(r) for r in own], [1, 1, *tokens, 0]),
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
