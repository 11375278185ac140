"""What a call of `generate` gives: sequences, text, and what each row cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from decoding.policy import Policy
from decoding.state import DecodeState

SHOWN = 60  # characters of a text that `repr` shows
ROWS_SHOWN = 4


@dataclass(frozen=True)
class Row:
    """One answer of a call.

    Attributes:
        text: the canvas up to its first EOS; None for a model without a tokenizer.
        ids: token ids of the canvas up to and including its first EOS.
        rounds, sequence_forwards, token_positions, explored, looks, drafts, drafts_true: as in `Generation`.
    """

    text: str | None
    ids: tuple[int, ...]
    rounds: int
    sequence_forwards: int
    token_positions: int
    explored: int
    looks: int
    drafts: int
    drafts_true: int

    @staticmethod
    def of(canvas: Sequence[int], counts: Sequence[int], *, end_ids: Sequence[int], tokenizer: Any) -> Row:
        """The answer on a canvas.

        Args:
            canvas: its tokens.
            counts: what it cost, in the order of the attributes.
            end_ids: ids that end an answer.
            tokenizer: spells it, or None.
        """
        answer = _answer(canvas, end_ids)
        text = None if tokenizer is None else _spelled(answer, tokenizer)
        return Row(text, tuple(canvas[: len(answer) + 1]), *counts)

    @property
    def new_tokens(self) -> int:
        """Length of the answer, its first EOS included."""
        return len(self.ids)


@dataclass(frozen=True, repr=False)
class Generation:
    """What a call of `generate` gives; unpacks as `sequences, nfe`.

    Attributes:
        sequences: prompts (left padded) and canvases.
        rounds: sequential forwards that each row waited for.
        sequence_forwards: canvases of each row through the model; a round of k branches is 1 round and k of these.
        token_positions: positions computed for each row, padding not counted.
        explored: rounds in which each row ran more than one canvas.
        looks: forwards foretold for each row by the head's cascade.
        drafts: foretold commits of each row that a forward has checked.
        drafts_true: those of them that came true.
        nfe: batched model calls.
        seconds: wall clock of the decode, prompts and text not counted.
        state: the last state: when, why and how sure each position was committed.
        policy: the policy with all its settings.
        history: with `history=True` the state before every commit, and the last one.
    """

    sequences: Int[Tensor, "B L"]
    rounds: Int[Tensor, " B"]
    sequence_forwards: Int[Tensor, " B"]
    token_positions: Int[Tensor, " B"]
    explored: Int[Tensor, " B"]
    nfe: int
    seconds: float
    state: DecodeState = field(repr=False)
    policy: Policy
    history: tuple[DecodeState, ...] = field(default=(), repr=False)
    tokenizer: Any = field(default=None, repr=False)
    eos_id: int | None = None
    end_ids: tuple[int, ...] = ()

    def __iter__(self) -> Iterator[Any]:
        """`x, nfe = generate(...)`."""
        return iter((self.sequences, self.nfe))

    @property
    def looks(self) -> Int[Tensor, " B"]:
        """Forwards foretold for each row."""
        return self.state.looks

    @property
    def drafts(self) -> Int[Tensor, " B"]:
        """Drafts of each row that a forward has checked."""
        return self.state.drafts

    @property
    def drafts_true(self) -> Int[Tensor, " B"]:
        """Those of them that came true."""
        return self.state.drafts_true

    @property
    def canvas(self) -> Int[Tensor, "B G"]:
        """The generated part of the sequences."""
        return self.sequences[:, self.state.block[0] >= 0]

    @property
    def text(self) -> list[str]:
        """Each canvas up to the first id that ends an answer, as a string.

        Raises:
            ValueError: if the model has no tokenizer.
        """
        if self.tokenizer is None:
            raise ValueError("text needs a model with a tokenizer, got one without")
        return [_spelled(_answer(canvas, self.end_ids), self.tokenizer) for canvas in self.canvas.tolist()]

    def row(self, index: int) -> Row:
        """One answer with what it cost.

        Args:
            index: of the row, negative ones from the end.

        Raises:
            IndexError: if there is no such row.
        """
        counts = (
            *(self.rounds, self.sequence_forwards, self.token_positions, self.explored),
            *(self.looks, self.drafts, self.drafts_true),
        )
        numbers = torch.stack([count[index] for count in counts]).tolist()
        return Row.of(self.canvas[index].tolist(), numbers, end_ids=self.end_ids, tokenizer=self.tokenizer)

    def __repr__(self) -> str:
        rows = [self.row(index) for index in range(min(ROWS_SHOWN, len(self.sequences)))]
        more = ", ..." if len(self.sequences) > ROWS_SHOWN else ""
        columns: dict[str, list[Any]] = {
            "text" if self.tokenizer else "ids": [row.text if self.tokenizer else row.ids for row in rows],
            "rounds": [row.rounds for row in rows],
            "sequence_forwards": [row.sequence_forwards for row in rows],
        }
        said = [
            f"{name}=[{', '.join(_short(repr(value)) for value in values)}{more}]" for name, values in columns.items()
        ]
        return f"Generation({', '.join(said)}, nfe={self.nfe}, seconds={self.seconds:.3g})"


def _answer(canvas: Sequence[int], end_ids: Sequence[int]) -> list[int]:
    """The tokens before the first that ends an answer."""
    return list(takewhile(lambda token: token not in end_ids, canvas))


def _spelled(answer: list[int], tokenizer: Any) -> str:
    return str(tokenizer.decode(answer, skip_special_tokens=True))


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 4] + "..." + text[-1]
