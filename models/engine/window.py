"""What a head reads of a forward by the engine: buffers of all canvases, and the window of rows that were asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from models.engine.graphs import compiled
from models.engine.place import Place

NUMBERS = ("canvas", "prompt", "first")
"""Of a tap: which canvases and prompts it is of, and the first row asked for; the same in all taps of a forward."""


@dataclass(frozen=True)
class WideTap:
    """A block's input, keys and values in buffers of C canvases, and which of them N canvases are.

    `Tap` of `models.denoiser` by reference: nothing is copied, and rows are addressed through a window of fixed width, so that no
    shape depends on a value.

    Attributes:
        hidden, keys, values: of C canvases; `hidden` only where the last forward computed it.
        cos, sin, seen, low, source: of B prompts: rotary table, places that hold a token and the first of them, and where what
            predicts each place sits.
        canvas, prompt: which of the C canvases and B prompts.
        first: the first row asked for of each.
        width: rows that the window holds, W.
        shift: places before a position where what predicts it sits.
        holes: whether some place after `low` holds no token.
    """

    hidden: Float[Tensor, "C L D"]
    keys: Float[Tensor, "C h L d"]
    values: Float[Tensor, "C h L d"]
    cos: Float[Tensor, "B L d"]
    sin: Float[Tensor, "B L d"]
    seen: Bool[Tensor, "B L"]
    low: Int[Tensor, " B"]
    source: Int[Tensor, "B L"]
    canvas: Int[Tensor, "*N"]
    prompt: Int[Tensor, "*N"]
    first: Int[Tensor, "*N"]
    width: int
    shift: int
    holes: bool

    def map(self, function: Callable[[Tensor], Tensor]) -> WideTap:
        """The tap of other canvases."""
        numbers: dict[str, Any] = {name: function(getattr(self, name)) for name in NUMBERS}
        return replace(self, **numbers)

    def take(
        self,
        index: Int[Tensor, " N"],
        context: tuple[Tensor, Tensor],
        where: Int[Tensor, "N Q"],
        own: tuple[Tensor, Tensor],
    ) -> None:
        """Keep the keys and values that N canvases attend to: their context's, and their own at the places computed.

        Args:
            index: places of the canvases in the buffers.
            context: keys and values of their contexts.
            where: places computed anew.
            own: keys and values there.
        """
        for buffer, held, new in zip((self.keys, self.values), context, own, strict=True):
            buffer.index_copy_(0, index, held)
            buffer.transpose(1, 2)[index.unsqueeze(1), where] = new.transpose(1, 2)

    @property
    def rows(self) -> Int[Tensor, "N W"]:
        """The places of the window, the last one repeated past the end."""
        return self._places[0]

    @property
    def inside(self) -> Bool[Tensor, "N W"]:
        """Which of them lie on the canvas."""
        return self._places[1]

    @property
    def states(self) -> Int[Tensor, "N H"]:
        """The places whose hidden states the window needs: its own, and one before in a shifted family."""
        return self._places[2]

    @property
    def predictor(self) -> Int[Tensor, "N W"]:
        """Which of `states` predicts each place of the window."""
        return self._places[3]

    @cached_property
    def _places(self) -> tuple[Tensor, ...]:
        find = compiled(_places, self.first.device)
        return find(self.first, self.source, self.prompt, width=self.width, shift=self.shift)

    @cached_property
    def place(self) -> Place:
        """Where the states of the window stand."""
        find = compiled(_span, self.first.device)
        start, count, low = find(
            self.first, self.low, self.prompt, width=self.width, shift=self.shift, length=self.hidden.shape[1]
        )
        return Place(self.canvas, start, count, low, self.seen[self.prompt] if self.holes else None)

    def pick(self, values: Tensor) -> Tensor:
        """[N, L, ...] at the places of the window."""
        rows = self.rows if values.ndim == 2 else self.rows.unsqueeze(-1).expand(-1, -1, values.shape[-1])
        return values.gather(1, rows)

    @property
    def back(self) -> Int[Tensor, "N L"]:
        """Which place of the window stands for each position of the canvas."""
        return self._places[4]


def _places(
    first: Int[Tensor, "*N"], source: Int[Tensor, "B L"], prompt: Int[Tensor, "*N"], *, width: int, shift: int
) -> tuple[Tensor, ...]:
    """`rows`, `inside`, `states` and `predictor` of a window, and which of its places stands for each position of the canvas."""
    length, start = source.shape[1], first.unsqueeze(-1)
    steps = torch.arange(width, device=first.device)
    rows = (start + steps).clamp(max=length - 1)
    states = (start + torch.arange(-shift, width, device=first.device)).clamp(0, length - 1)
    predictor = (source[prompt.unsqueeze(-1), rows] - start + shift).clamp(0, width + shift - 1)
    back = (torch.arange(length, device=first.device) - start).clamp(0, width - 1)
    return rows, start + steps < length, states, predictor, back


def _span(
    first: Int[Tensor, "*N"], low: Int[Tensor, " B"], prompt: Int[Tensor, "*N"], *, width: int, shift: int, length: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Where the states of a window begin, how many there are, and the first place of the prompt that holds a token."""
    start = (first - shift).clamp(min=0)
    return start, (start + width + shift).clamp(max=length) - start, low[prompt]
