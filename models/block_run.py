"""A run through the blocks of a transformer: what it leaves behind, and which positions it speaks of."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

Complete = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Run:
    """What one run through the blocks leaves behind, for N canvases.

    Attributes:
        hidden: output of the last block, before the final norm; zero at positions not computed.
        entered: block -> its input, for the blocks tapped.
        keys, values: block -> what its attention read, for the blocks recorded.
        positions: token positions computed for each canvas.
    """

    hidden: Float[Tensor, "N L D"]
    entered: dict[int, Float[Tensor, "N L D"]]
    keys: dict[int, Float[Tensor, "N H S d"]]
    values: dict[int, Float[Tensor, "N H S d"]]
    positions: Int[Tensor, " N"]


class Recorder:
    """Stands where an attention layer expects its cache: notes the keys and values of some blocks and passes them on.

    Args:
        wanted: blocks to note.
        complete: (block, keys, values) -> those of all positions, where only some were computed.
    """

    def __init__(self, wanted: Container[int], complete: Complete | None = None) -> None:
        self.wanted, self.complete = wanted, complete
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    def update(self, keys: Tensor, values: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """Called by the attention layer, with rotated keys; what it returns is attended to."""
        if self.complete is not None:
            keys, values = self.complete(layer_idx, keys, values)
        if layer_idx in self.wanted:
            self.keys[layer_idx], self.values[layer_idx] = keys, values
        return keys, values


@runtime_checkable
class BlockStack(Protocol):
    """What a cache needs of a denoiser: its blocks, and a way to run them."""

    mask_id: int
    shifted: bool

    @property
    def blocks(self) -> nn.ModuleList:
        """The decoder layers, first to last."""

    def run_blocks(
        self,
        tokens: Int[Tensor, "N Q"],
        attention_mask: Bool[Tensor, "N S"] | None,
        rotary: tuple[Float[Tensor, "N Q d"], Float[Tensor, "N Q d"]],
        recorder: Recorder | None,
        taps: Container[int],
        computed: Bool[Tensor, "N S"],
    ) -> Run:
        """Embedding and all blocks for the Q positions given.

        Args:
            tokens: the Q positions that are computed.
            attention_mask: over the S positions attended to.
            rotary: cosines and sines of the Q positions.
            recorder: keeps keys and values, or adds those kept before.
            taps: blocks whose input is kept.
            computed: the Q positions within the S, for the count.
        """


def context_of(tokens: Int[Tensor, "N L"], attention_mask: Tensor | None) -> Bool[Tensor, "N L"]:
    """Positions that hold a token: the attention mask, or all."""
    return torch.ones_like(tokens, dtype=torch.bool) if attention_mask is None else attention_mask.bool()


def positions_of(context: Bool[Tensor, "N L"]) -> Int[Tensor, "N L"]:
    """Position ids that do not count padding: cumsum(attention_mask) - 1, at least 0."""
    return (context.long().cumsum(-1) - 1).clamp(min=0)


def themselves(context: Bool[Tensor, "N L"]) -> Int[Tensor, "N L"]:
    """The index of each position."""
    return torch.arange(context.shape[1], device=context.device).expand(context.shape)


def predictors(context: Bool[Tensor, "N L"]) -> Int[Tensor, "N L"]:
    """Where the hidden state that predicts each position sits in a shifted family: at i - 1; of the first token at i."""
    here = themselves(context)
    before = (here - 1).clamp(min=0)
    return torch.where(context.gather(1, before), before, here)
