"""Rounds without an engine: only what is live runs, and the host waits to learn what that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.functional import pad

from decoding.calls.waiting import Entry
from decoding.policy import newest_block
from decoding.reading import Reading, read
from decoding.rounds.driver import Driver
from decoding.rounds.round import Sight
from decoding.state import DecodeState
from models.denoiser import Prediction
from models.earlier import Earlier, narrowed

SLACK = 8  # columns of padding that all rows share before they are taken off


@final
class PlainDriver(Driver):
    """Only the live canvases run; the host waits to learn which."""

    def enter(self, state: DecodeState, *, watched: bool) -> None:
        """One canvas for each row; the first proposal makes as many as it wants."""
        state = self.placed(state)
        self.carry = self.begun(state, 1)
        self.earlier = (
            Earlier(len(state.tokens), state.tokens.shape[1], state.tokens.device) if self.needs.earlier else None
        )
        self.number = torch.arange(len(state.tokens), device=state.tokens.device)

    def look(self) -> bool:
        """Pack the live canvases, run them, and spread what they say."""
        index = self.carry.live.nonzero()  # the one small tensor the host waits for
        if self.queue is not None and self.turn_over(set(index[:, 0].tolist())):
            index = self.carry.live.nonzero()
        if not len(index):
            return False
        canvases, row = self.carry.canvases, index[:, 0]
        prediction = self.predict(canvases, index)
        shape = (canvases.tokens.shape[0], canvases.tokens.shape[1])
        reading = self.understood(prediction, canvases, index).scatter(index, shape)
        used = torch.bincount(row, minlength=shape[0])
        self.sight = Sight(reading, used, torch.zeros_like(used).index_add(0, row, prediction.positions))
        self.nfe += 1
        return True

    def predict(self, canvases: DecodeState, index: Int[Tensor, "N 2"]) -> Prediction:
        """One forward over the live canvases, of the kind that the policy needs."""
        needs, (row, branch) = self.needs, index.unbind(-1)
        tokens, mask = canvases.tokens[row, branch], self.seen(canvases, index)
        rows = needs.asked(canvases)[row, branch]
        if needs.shadows:
            shadows = newest_block(canvases)[row, branch].nonzero()[:, 1].view(len(row), -1)
            return self.denoiser.shadowed(tokens, shadows, attention_mask=mask, rows=rows)
        if needs.maps:
            rows = rows if mask is None else rows & mask.bool()
            return self.denoiser.attended(tokens, needs.maps, attention_mask=mask, rows=rows)
        prediction: Prediction = self.denoiser(
            tokens,
            attention_mask=mask,
            rows=rows,
            taps=needs.taps,
            owner=row,
            refresh=canvases.spent[row, branch] == 0,
        )
        return prediction

    def seen(self, canvases: DecodeState, index: Int[Tensor, "N 2"]) -> Bool[Tensor, "N L"] | None:
        """What each canvas may attend to: all but the padding, and but what the policy hides."""
        row, branch = index.unbind(-1)
        mask = None if self.attention_mask is None else self.attention_mask[row]
        if not self.needs.hides or canvases.layout.cached:  # a cache holds the keys and values of all
            return mask
        visible = self.policy.visible(canvases)[row, branch]
        return visible if mask is None else mask & visible

    def understood(self, prediction: Prediction, canvases: DecodeState, index: Int[Tensor, "N 2"]) -> Reading:
        """The reading of the canvases, with how far it moved from the one before where the policy asks for it."""
        row, branch = index.unbind(-1)
        chances = self.chances(row, branch)
        if self.earlier is None:
            committed = canvases.tokens.masked_fill(canvases.masked, -1)
            standing = committed[row, branch] if self.needs.shadows else None
            return read(prediction, self.sampling, chances, standing)
        drift = self.earlier.drift(prediction, row)
        reading = read(narrowed(prediction, canvases.feasible[row, branch]), self.sampling, chances)
        return replace(reading, drift=drift.masked_fill(~reading.rows, 0.0))

    def seat(self, entries: Mapping[int, Entry]) -> None:
        """Let prompts begin, in a batch that is as wide as its longest row."""
        widest = max(entry.size for entry in {**self.seats, **entries}.values())
        left = widest - self.carry.canvases.tokens.shape[-1]
        if left > 0 or left <= -SLACK:
            self.carry = self.carry.extend(left)
            self.attention_mask = pad(cast(Tensor, self.attention_mask), (left, 0))
            for kept in (getattr(self.denoiser, "cache", None), self.earlier):
                if kept is not None:
                    kept.extend(left)
        if self.earlier is not None:
            self.earlier.forget(list(entries))
        super().seat(entries)

    def commit(self) -> None:
        """Write what was proposed, and see that it was something."""
        super().commit()
        self.heed(int(self.carry.alarm))
