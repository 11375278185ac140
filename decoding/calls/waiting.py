"""Prompts that wait for a place in a decode, and those that have one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from decoding.state import DecodeState, Layout, start


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


def join(
    entries: Mapping[int, Entry],
    layout: Layout,
    *,
    batch: int,
    width: int,
    initial_blocks: int,
    device: torch.device,
) -> Joining:
    """The first states of prompts at their places in a batch, each at the right end of its row.

    Args:
        entries: place -> prompt.
        layout: of the decode.
        batch: B.
        width: L, at least the positions of each.
        initial_blocks: open at first.
        device: of the batch.
    """
    tokens = torch.zeros(batch, width, dtype=torch.long)
    lengths = torch.zeros(4, batch, dtype=torch.long)  # of the canvas, of its blocks, of the row; and the number
    lengths[1] = 1
    for place, entry in entries.items():
        tokens[place, width - entry.size : width - entry.gen_length] = torch.tensor(entry.ids)
        lengths[:, place] = torch.tensor([entry.gen_length, entry.block_length, entry.size, entry.number])
    sent = torch.cat([tokens, lengths.T], 1).to(device)
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
    mask = torch.arange(width, device=device) >= (width - size).unsqueeze(-1)
    return Joining(canvas > 0, state, mask, number)
