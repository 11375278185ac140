"""One answer as it comes, in the interface of transformers' streamers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from decoding.reading import Reading
from decoding.state import DecodeState
from models.complaints import shown


@dataclass
class Stream:
    """Feeds a streamer with the one row of a decode.

    Attributes:
        streamer: its `put` gets tokens that no later round changes, `put_draft`, where it has one, the canvas behind them.
        end_ids: those that end the answer.
        whole: put nothing before the end, as the rule may take back what it committed.
        sent: canvas tokens put so far.
    """

    streamer: Any
    end_ids: tuple[int, ...]
    whole: bool
    sent: int = 0

    @staticmethod
    def open(streamer: Any, state: DecodeState, *, end_ids: tuple[int, ...], whole: bool) -> Stream:
        """Put the prompt.

        Args:
            streamer: an object of transformers' interface.
            state: before the first forward.
            end_ids: those that end the answer.
            whole: put nothing before the end.

        Raises:
            ValueError: for more than one row, and an object without `put` and `end`.
        """
        if not all(callable(getattr(streamer, name, None)) for name in ("put", "end")):
            raise ValueError(f"streamer must have put and end, got {shown(streamer)}")
        if len(state.tokens) != 1:
            raise ValueError(f"streamer must come with one prompt and one answer, got {len(state.tokens)} rows")
        streamer.put(state.tokens[0, state.block[0] < 0].cpu())
        return Stream(streamer, end_ids, whole)

    def step(self, state: DecodeState, reading: Reading) -> None:
        """A hook of the decode: put what is finished before this round, then what the canvas would be if it ended now."""
        canvas = state.block[0] >= 0
        tokens, masked = state.tokens[0, canvas], state.masked[0, canvas]
        if not self.whole:
            self._put(tokens, int((masked.cumsum(-1) == 0).sum()))
        if hasattr(self.streamer, "put_draft"):
            read = reading.rows[0, canvas]
            draft = torch.where(masked & read, reading.token[0, canvas], tokens)[self.sent :]
            known = (~masked | read)[self.sent :]
            self.streamer.put_draft(self._until_end(draft[known]).cpu())

    def close(self, state: DecodeState) -> None:
        """Put the rest up to the first EOS, and end."""
        tokens = state.tokens[0, state.block[0] >= 0]
        self._put(tokens, len(tokens))
        self.streamer.end()

    def _put(self, tokens: Int[Tensor, " G"], finished: int) -> None:
        answer = self._until_end(tokens[:finished])[self.sent :]
        if len(answer):
            self.streamer.put(answer.cpu())
            self.sent += len(answer)

    def _until_end(self, tokens: Int[Tensor, " n"]) -> Int[Tensor, " m"]:
        ends = torch.isin(tokens, tokens.new_tensor(self.end_ids)).nonzero()
        return tokens[: int(ends[0])] if len(ends) else tokens
