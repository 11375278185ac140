"""Answers as they come out of a batch that rows leave and join: in order, with their share of its time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, final

import torch

from decoding.generation import Row
from decoding.rounds.round import Round


@dataclass(frozen=True)
class Answer:
    """One answer of `generate_many`.

    Attributes:
        number: of its prompt.
        row: its text and what it cost.
        seconds: its share of the decode: the time of every round, divided among the rows in it.
    """

    number: int
    row: Row
    seconds: float


def in_order(answers: Iterable[tuple[int, Answer]]) -> Iterator[tuple[int, Answer]]:
    """Answers with their places, from place 0 on, each held back until those before it are there."""
    waiting: dict[int, Answer] = {}
    following = 0
    for place, answer in answers:
        waiting[place] = answer
        ready = next((end for end in count(following) if end not in waiting), following)
        yield from ((one, waiting.pop(one)) for one in range(following, ready))
        following = ready


@final
class Shares:
    """What of a decode's time is each prompt's: that of every round, divided among the rows in it."""

    def __init__(self) -> None:
        self._each = 0.0  # what a row that had been there from the start would have
        self._joined: dict[int, float] = {}

    def spend(self, seconds: float, taken: list[list[int]]) -> None:
        """Divide the time since the last rows ended.

        Args:
            seconds: of the decode alone.
            taken: places of the prompts that joined since, those that came together in one list; emptied.
        """
        if not self._joined and taken:
            self._joined = dict.fromkeys(taken.pop(0), self._each)
        self._each += seconds / max(1, len(self._joined))
        self._joined |= {place: self._each for places in taken for place in places}
        taken.clear()

    def of(self, place: int) -> float:
        """The time of a prompt that has ended."""
        return self._each - self._joined.pop(place)


def timed(rounds: Iterator[Round]) -> Iterator[tuple[float, Round]]:
    """Rounds with the seconds that each took to come; inference mode is on while they are made, and off with the caller."""

    def step() -> tuple[float, Round] | None:
        began = time.perf_counter()
        with torch.inference_mode():
            round_ = next(rounds, None)
        return None if round_ is None else (time.perf_counter() - began, round_)

    return iter(step, None)


def rows_of(round_: Round, *, end_ids: Sequence[int], tokenizer: Any) -> list[Row]:
    """The answers of rows that have ended, read in one go.

    Args:
        round_: their last one.
        end_ids: ids that end an answer.
        tokenizer: spells them, or None.
    """
    state, cost = round_.state, round_.counts
    counts = [cost.rounds, cost.sequence_forwards, cost.token_positions, cost.explored]
    counts += [state.looks, state.drafts, state.drafts_true]
    lines = torch.cat([torch.stack(counts, 1), state.tokens], 1).tolist()
    canvases = [line[len(line) - entry.gen_length :] for line, entry in zip(lines, round_.entries, strict=True)]
    return [
        Row.of(canvas, line[: len(counts)], end_ids=end_ids, tokenizer=tokenizer)
        for line, canvas in zip(lines, canvases, strict=True)
    ]
