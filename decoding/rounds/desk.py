"""What decodes on an engine keep between graphs: the rows that begin, join and end, and what a round hands on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from decoding.calls.waiting import NUMBERS, Entry, joining, packed
from decoding.reading import Reading
from decoding.rounds.round import KEPT, Carry, first_carry
from decoding.state import TENSORS, DecodeState, Layout, extend
from models.engine.session import copy_all

KINDS = (torch.long, torch.float, torch.bool)  # of all that a state holds


@dataclass(frozen=True)
class Desk:
    """The buffers of all decodes of a session, one at a time: graphs read and write them, the host fills `state`, `mask`, `sent`.

    A decode begins by writing all of them that it reads.

    Attributes:
        carry: between rounds.
        state: rows that begin together, and the same rows in the end, packed (`packed_state`).
        mask: which of their places hold a token.
        sent: prompts that join (`packed`).
        nothing: a reading of no position.
        like: a state of the same shape, whose values nobody reads.
    """

    carry: Carry
    state: tuple[Tensor, ...]
    mask: Bool[Tensor, "B L"]
    sent: Int[Tensor, "B W"]
    nothing: Reading
    like: DecodeState

    @staticmethod
    def for_batches(state: DecodeState, left: int, canvases: int, device: torch.device) -> Desk:
        """Buffers for batches of the size of one.

        Args:
            state: one to begin with.
            left: columns before it.
            canvases: of each row.
            device: of the buffers.
        """
        wide = extend(state, left).map(lambda v: _own(v.to(device)))
        batch, length = wide.tokens.shape
        carry = first_carry(wide, canvases)
        return Desk(
            carry=_owned(carry),
            state=packed_state(wide, carry.counts),
            mask=torch.ones_like(wide.masked),
            sent=torch.zeros(batch, length + NUMBERS, dtype=torch.long, device=device),
            nothing=Reading.empty((batch, length), device),
            like=wide,
        )

    def laid_out(self, layout: Layout) -> Desk:
        """The same buffers for a decode with other numbers."""
        carry = replace(self.carry, canvases=replace(self.carry.canvases, layout=layout))
        return replace(self, carry=carry, like=replace(self.like, layout=layout))

    def put(self, state: DecodeState, mask: Bool[Tensor, "B P"] | None, left: int) -> None:
        """Take a state to begin with, and as many columns of padding at its left."""
        wide = extend(state, left)
        none = torch.zeros(len(self.carry.counts), len(wide.tokens), dtype=torch.long, device=wide.tokens.device)
        for buffer, part in zip(self.state, packed_state(wide, none), strict=True):
            buffer.copy_(part)
        self.mask[:, :left] = False
        self.mask[:, left:] = True if mask is None else mask

    def send(self, entries: Mapping[int, Entry]) -> None:
        """Take prompts that join."""
        batch, length = self.mask.shape
        self.sent.copy_(packed(entries, batch=batch, width=length))

    def write(self, carry: Carry) -> None:
        """Keep what a round hands on."""
        copy_all(_tensors(self.carry), _tensors(carry))

    def ended(self, rows: Sequence[int] | None, left: int) -> tuple[DecodeState, Int[Tensor, "4 N"]]:
        """The last state of some rows, or of all, without columns at the left, and what they cost; in memory of its own.

        Args:
            rows: which; None for all.
            left: columns.
        """
        if rows is None:
            parts = [part.clone() for part in self.state]
        else:
            index = torch.tensor(rows, device=self.mask.device)
            parts = [part.index_select(0, index) for part in self.state]
        state, counts = unpacked_state(parts, self.like)
        state = extend(state, -left)
        return replace(state, tokens=state.tokens.contiguous()), counts


def entered(parts: tuple[Tensor, ...], like: DecodeState, canvases: int) -> Carry:
    """A batch before its first round.

    Args:
        parts: its rows, packed.
        like: a state of the same shape.
        canvases: K of each row.
    """
    return first_carry(unpacked_state(parts, like)[0], canvases)


def seated(
    sent: Int[Tensor, "B W"], carry: Carry, seen: Bool[Tensor, "B L"], initial_blocks: int
) -> tuple[Carry, Bool[Tensor, "B L"], Bool[Tensor, " B"]]:
    """A batch in which prompts have taken the places of rows that ended, what of it is a token, and the rows that are new.

    Args:
        sent: the prompts (`packed`).
        carry: of the rows before.
        seen: False on their padding.
        initial_blocks: of a canvas, open at first.
    """
    new = joining(sent, carry.canvases.layout, initial_blocks=initial_blocks)
    begun = first_carry(new.state, carry.canvases.tokens.shape[1])
    return carry.where(new.rows, begun), torch.where(new.rows.unsqueeze(-1), new.attention_mask, seen), new.rows


def packed_state(state: DecodeState, counts: Int[Tensor, "4 B"]) -> tuple[Tensor, ...]:
    """All tensors of a state, those of one kind of number as one, and the counts behind the whole numbers."""
    values: list[Tensor] = [
        getattr(state, name).flatten(1) if getattr(state, name).ndim > 1 else getattr(state, name).unsqueeze(1)
        for name in TENSORS
    ]
    values.append(counts.T)
    return tuple(torch.cat([value for value in values if value.dtype == kind], 1) for kind in KINDS)


def unpacked_state(parts: Sequence[Tensor], like: DecodeState) -> tuple[DecodeState, Int[Tensor, "4 N"]]:
    """The state and counts that were packed, as views.

    Args:
        parts: by kind.
        like: a state of the same shape, of any number of rows.
    """
    used, found = dict.fromkeys(KINDS, 0), []
    for name in TENSORS:
        one: Tensor = getattr(like, name)
        width, first, part = one.shape[1:].numel(), used[one.dtype], parts[KINDS.index(one.dtype)]
        columns = part[:, first] if one.ndim == 1 else part[:, first : first + width]
        found.append(columns if one.ndim < 3 else columns.reshape(len(part), *one.shape[1:]))
        used[one.dtype] = first + width
    return DecodeState(like.layout, *found), parts[0][:, used[torch.long] :].T


def _own(value: Tensor) -> Tensor:
    """A copy in rows, also of what holds nothing: compiled programs keep its strides in mind."""
    return value.clone(memory_format=torch.contiguous_format)


def _owned(carry: Carry) -> Carry:
    """The same values in memory of their own."""
    copies: dict[str, Any] = {name: _own(getattr(carry.proposal, name)) for name in KEPT}
    proposal = replace(carry.proposal, **copies)
    return Carry(carry.canvases.map(_own), proposal, _own(carry.counts), _own(carry.alarm))


def _tensors(carry: Carry) -> list[Tensor]:
    """What a graph carries; the confidences of a proposal are written by its commit and read no more."""
    canvases, proposal = carry.canvases, carry.proposal
    state: list[Any] = [getattr(canvases, name) for name in TENSORS if name != "memory"]
    plan = [getattr(proposal, name) for name in KEPT]
    return [*state, *plan, carry.counts, carry.alarm]
