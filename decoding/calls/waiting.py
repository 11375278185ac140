"""Prompts that wait for a place in a decode, and those that have one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from decoding.state import DecodeState, Layout, start

NUMBERS = (
    4  # behind the tokens of a prompt that joins: lengths of its canvas, of its blocks and of its row, and its number
)


@dataclass(frozen=True)
class Entry:
    """A prompt that waits.

    Attributes:
        place: in the order of the prompts, from 0.
        number: what its draws follow from.
        ids: its tokens.
        gen_length, block_length: of its canvas.
    """

    place: int
    number: int
    ids: tuple[int, ...]
    gen_length: int
    block_length: int

    @property
    def size(self) -> int:
        """Positions of prompt and canvas."""
        return len(self.ids) + self.gen_length


@final
class Queue:
    """Prompts that wait, read as they are needed.

    Args:
        entries: in the order in which they are decoded; of a list the longest is known before it is read.

    Attributes:
        taken: places of those that have been taken, those taken together in one list; whoever reads them may empty it.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.widest = max((entry.size for entry in entries), default=0) if isinstance(entries, list) else 0
        self.taken: list[list[int]] = []
        self._entries = iter(entries)
        self._held: Entry | None = None

    def take(self, count: int, room: int | None) -> list[Entry]:
        """The next ones, at most `count` and none of more than `room` positions; a longer one keeps its turn."""
        taken: list[Entry] = []
        for _ in range(count):
            self._held = self._held or next(self._entries, None)
            if self._held is None or (room is not None and self._held.size > room):
                break
            taken.append(self._held)
            self._held = None
        if taken:
            self.taken.append([entry.place for entry in taken])
        return taken


@dataclass(frozen=True)
class Joining:
    """Rows of a batch that begin, among others that are left alone.

    Attributes:
        rows: those that begin.
        state: their first state; the other rows hold no mask.
        attention_mask: False on their padding.
        number: of their prompts.
    """

    rows: Bool[Tensor, " B"]
    state: DecodeState
    attention_mask: Bool[Tensor, "B L"]
    number: Int[Tensor, " B"]


def packed(entries: Mapping[int, Entry], *, batch: int, width: int) -> Int[Tensor, "B W"]:
    """Prompts at their places in a batch, each at the right end of its row, and behind each row NUMBERS that say the rest.

    Args:
        entries: place -> prompt.
        batch: B.
        width: positions of a row, at least those of each prompt.
    """
    lines = torch.zeros(batch, width + NUMBERS, dtype=torch.long)
    lines[:, width + 1] = 1
    for place, entry in entries.items():
        row = [*entry.ids, *[0] * entry.gen_length, entry.gen_length, entry.block_length, entry.size, entry.number]
        lines[place, width - entry.size :] = torch.tensor(row)
    return lines


def joining(sent: Int[Tensor, "B W"], layout: Layout, *, initial_blocks: int) -> Joining:
    """The first states of prompts.

    Args:
        sent: the prompts (`packed`), on the device of the batch.
        layout: of the decode.
        initial_blocks: open at first.
    """
    width = sent.shape[1] - NUMBERS
    canvas, block, size, number = sent[:, width:].unbind(-1)
    state = start(
        sent[:, :width],
        gen_length=canvas,
        block_length=block,
        mask_id=layout.mask_id,
        eos_id=layout.end_ids,
        step_budget=layout.step_budget,
        initial_blocks=initial_blocks,
        cached=layout.cached,
    )
    mask = torch.arange(width, device=sent.device) >= (width - size).unsqueeze(-1)
    return Joining(canvas > 0, state, mask, number)
