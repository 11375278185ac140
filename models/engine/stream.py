"""The side-stream over the window of a forward by the engine: the base's last blocks once more, at rows of fixed width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from models.engine import kernels
from models.engine.block import Attend, run_blocks
from models.engine.graphs import compiled
from models.engine.versions import Versions
from models.engine.weights import BlockWeights, read_block
from models.engine.window import WideTap

_READ: WeakKeyDictionary[Any, tuple[int, list[BlockWeights]]] = WeakKeyDictionary()
_VERSIONS = Versions()


def run_stream(
    stream: Any,
    taps: Sequence[WideTap],
    runs: Bool[Tensor, "N H"],
    changed: Float[Tensor, "N H D"] | None = None,
) -> Float[Tensor, "N H D"]:
    """Hidden states after the final norm at the states of the window, from the base's or from `changed` ones.

    Args:
        stream: a `SideStream`, with or without LoRA.
        taps: of its blocks.
        runs: states that the stream computes; elsewhere the base's keys and values stand, and the result means nothing.
        changed: what the first block starts from.
    """
    first = taps[0]
    states, canvas, place = first.states, first.canvas.unsqueeze(-1), first.place
    cos, sin = compiled(_rotary, states.device)(first.cos, first.sin, first.prompt, states)
    hidden = (first.hidden[canvas, states] if changed is None else changed).contiguous()
    weights, own = weights_of(stream), compiled(_own, states.device)

    def attend(block: int) -> Attend:
        context = (taps[block].keys, taps[block].values)
        chosen = runs if changed is not None or block else torch.zeros_like(runs)

        def attend_(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            keys, values = own(key, value, context, canvas, states, chosen)
            return kernels.attend_span(query, keys, values, context, place, weights[block].scale)

        return attend_

    run_blocks(hidden, weights, (cos, sin), attend)
    norm = stream.norm
    return kernels.rms_norm(hidden.flatten(0, 1), norm.weight, norm.variance_epsilon).view_as(hidden)


def _rotary(cos: Tensor, sin: Tensor, prompt: Int[Tensor, " N"], states: Int[Tensor, "N H"]) -> tuple[Tensor, Tensor]:
    """The rotary table at the states of each prompt."""
    return cos[prompt.unsqueeze(-1), states], sin[prompt.unsqueeze(-1), states]


def _own(
    key: Float[Tensor, "N h H d"],
    value: Float[Tensor, "N h H d"],
    context: tuple[Tensor, Tensor],
    canvas: Int[Tensor, "N 1"],
    states: Int[Tensor, "N H"],
    chosen: Bool[Tensor, "N H"],
) -> tuple[Tensor, Tensor]:
    """New keys and values at the chosen states, those of the base's forward at the others."""

    def merged(new: Tensor, held: Tensor) -> Tensor:
        base = held.transpose(1, 2)[canvas, states].transpose(1, 2)
        return torch.where(chosen[:, None, :, None], new, base).contiguous()

    return merged(key, context[0]), merged(value, context[1])


def weights_of(stream: Any) -> list[BlockWeights]:
    """The weights of a stream's blocks, read once, and again after they changed."""
    state = _VERSIONS.of(stream)
    if stream not in _READ or _READ[stream][0] != state:
        _READ[stream] = state, [read_block(block) for block in stream.blocks]
        _READ[stream] = _VERSIONS.of(stream), _READ[stream][1]  # reading may have moved them
    return _READ[stream][1]


def predicting(predictor: Int[Tensor, "N W"], asked: Bool[Tensor, "N W"], shift: int) -> Bool[Tensor, "N H"]:
    """The states that predict the places of a window asked for; `shift` of them stand before it."""
    hits = torch.zeros(len(asked), asked.shape[1] + shift, dtype=torch.long, device=asked.device)
    return hits.scatter_add(1, predictor, asked.long()) > 0
