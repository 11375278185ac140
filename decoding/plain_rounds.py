"""Rounds without an engine: only what is live runs, and the host waits to learn what that is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast, final

import torch
from torch import Tensor
from torch.nn.functional import pad

from decoding.calls.waiting import Entry
from decoding.reading import read
from decoding.rounds import Driver, Sight, first_carry
from decoding.state import DecodeState

SLACK = 8  # columns of padding that all rows share before they are taken off


@final
class PlainDriver(Driver):
    """Only the live canvases run; the host waits to learn which."""

    def enter(self, state: DecodeState, *, watched: bool) -> None:
        """One canvas for each row; the first proposal makes as many as it wants."""
        self.carry = first_carry(state, 1)
        self.number = torch.arange(len(state.tokens), device=state.tokens.device)

    def look(self) -> bool:
        """Pack the live canvases, run them, and spread what they say."""
        index = self.carry.live.nonzero()  # the one small tensor the host waits for
        if self.queue is not None and self.turn_over(set(index[:, 0].tolist())):
            index = self.carry.live.nonzero()
        if not len(index):
            return False
        canvases, (row, branch) = self.carry.canvases, index.unbind(-1)
        mask = self.attention_mask
        prediction = self.denoiser(
            canvases.tokens[row, branch],
            attention_mask=None if mask is None else mask[row],
            rows=canvases.feasible[row, branch],
            taps=self.policy.needs.taps,
            owner=row,
            refresh=canvases.spent[row, branch] == 0,
        )
        shape = (canvases.tokens.shape[0], canvases.tokens.shape[1])
        reading = read(prediction, self.sampling, self.chances(row, branch)).scatter(index, shape)
        used = torch.bincount(row, minlength=shape[0])
        self.sight = Sight(reading, used, torch.zeros_like(used).index_add(0, row, prediction.positions))
        self.nfe += 1
        return True

    def seat(self, entries: Mapping[int, Entry]) -> None:
        """Let prompts begin, in a batch that is as wide as its longest row."""
        widest = max(entry.size for entry in {**self.seats, **entries}.values())
        left = widest - self.carry.canvases.tokens.shape[-1]
        if left > 0 or left <= -SLACK:
            self.carry = self.carry.extend(left)
            self.attention_mask = pad(cast(Tensor, self.attention_mask), (left, 0))
            cache = getattr(self.denoiser, "cache", None)
            if cache is not None:
                cache.extend(left)
        super().seat(entries)

    def commit(self) -> None:
        """Write what was proposed, and see that it was something."""
        super().commit()
        self.heed(int(self.carry.alarm))
