"""The side-stream over the window of a forward by the engine: the base's last blocks once more, at rows of fixed width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models.engine import kernels
from models.engine.block import run_block
from models.engine.weights import read_block
from models.engine.window import WideTap


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
    tap = taps[0]
    states, canvas = tap.states, tap.canvas.unsqueeze(-1)
    rotary = tuple(table[tap.prompt.unsqueeze(-1), states] for table in (tap.cos, tap.sin))
    start = (tap.first - tap.shift).clamp(min=0)
    count = (start + states.shape[1]).clamp(max=tap.hidden.shape[1]) - start
    place = (tap.canvas, start, count, tap.seen[tap.prompt])
    hidden = tap.hidden[canvas, states] if changed is None else changed
    chosen = runs[:, None, :, None]
    for depth, (block, tap) in enumerate(zip(stream.blocks, taps, strict=True)):
        weights = read_block(block)
        base = [held.transpose(1, 2)[canvas, states].transpose(1, 2) for held in (tap.keys, tap.values)]

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            own = base  # noqa: B023
            if changed is not None or depth:  # noqa: B023
                own = [torch.where(chosen, new, held) for new, held in zip((key, value), base, strict=True)]  # noqa: B023
            return kernels.attend_span(query, own[0], own[1], (tap.keys, tap.values), place, weights.scale)  # noqa: B023

        hidden = run_block(hidden, weights, (rotary[0], rotary[1]), attend)
    norm = stream.norm
    return kernels.rms_norm(hidden.flatten(0, 1), norm.weight, norm.variance_epsilon).view_as(hidden)


def predicting(tap: WideTap, asked: Bool[Tensor, "N W"]) -> Bool[Tensor, "N H"]:
    """The states that predict the places of the window asked for."""
    hits = torch.zeros(len(asked), asked.shape[1] + tap.shift, dtype=torch.long, device=asked.device)
    return hits.scatter_add(1, tap.predictor, asked.long()) > 0
