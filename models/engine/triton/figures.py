# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-not-found"
"""Triton kernels of what a round reads off the logits; float32 inside, rounded once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from models.engine.triton import jit

PART = 1024  # of the vocabulary, which one warp reads


@jit
def _figures_of_part(
    logits, top_values, top_tokens, sums, vocabulary, parts, first, second, BLOCK: tl.constexpr, TOP: tl.constexpr
):
    line, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    token = part * BLOCK + tl.arange(0, BLOCK)
    inside = token < vocabulary
    z = tl.load(logits + line * vocabulary + token, inside, other=-float("inf")).to(tl.float32)
    highest = tl.max(z, 0)
    weight = tl.where(inside, tl.exp(z - highest), 0.0)
    allowed = tl.where((token != first) & (token != second), z, -float("inf"))
    here = line * parts + part
    chosen = 0
    for place in tl.static_range(TOP):
        value, index = tl.max(allowed, 0, return_indices=True)
        tl.store(top_values + here * TOP + place, value)
        tl.store(top_tokens + here * TOP + place, part * BLOCK + index)
        allowed = tl.where(tl.arange(0, BLOCK) == index, -float("inf"), allowed)
        if place == 0:
            chosen = tl.where(value > -float("inf"), index, -1)  # of a part that is forbidden nothing is chosen
    rest = tl.sum(tl.where(tl.arange(0, BLOCK) == chosen, 0.0, weight), 0)
    leaned = tl.sum(tl.where(weight > 0, weight * (z - highest), 0.0), 0)
    tl.store(sums + here * 3, highest)
    tl.store(sums + here * 3 + 1, rest)
    tl.store(sums + here * 3 + 2, leaned)


@jit
def _figures(
    top_values, top_tokens, sums, floats, ints, parts, PARTS: tl.constexpr, TOPS: tl.constexpr, TOP: tl.constexpr
):
    line = tl.program_id(0).to(tl.int64)
    part, place = tl.arange(0, PARTS), tl.arange(0, TOPS)
    inside = part < parts
    here = (line * parts + part) * 3
    highest = tl.load(sums + here, inside, other=-float("inf"))
    rest = tl.load(sums + here + 1, inside, other=0.0)
    leaned = tl.load(sums + here + 2, inside, other=0.0)
    own = tl.load(top_values + (line * parts + part) * TOP, inside, other=-float("inf"))
    first = tl.exp(own - highest)  # what the part's own best token weighs
    first = tl.where(inside, first, 0.0)
    peak = tl.max(highest, 0)
    factor = tl.where(inside, tl.exp(highest - peak), 0.0)
    total = tl.sum(factor * (rest + first), 0)
    normaliser = peak + tl.log(total)
    moved = tl.where(inside, leaned + (highest - peak) * (rest + first), 0.0)
    entropy = tl.log(total) - tl.sum(factor * moved, 0) / total
    values = tl.load(top_values + line * parts * TOP + place, place < parts * TOP, other=-float("inf"))
    winner = 0
    likeliest = 0.0
    for rank in tl.static_range(TOP):
        value, index = tl.max(values, 0, return_indices=True)
        token = tl.load(top_tokens + line * parts * TOP + index)
        tl.store(ints + line * (TOP + 1) + 1 + rank, token.to(tl.int64))
        tl.store(floats + line * (TOP + 4) + 4 + rank, tl.maximum(value - normaliser, -100.0))
        values = tl.where(place == index, -float("inf"), values)
        if rank == 0:
            winner = index // TOP
            tl.store(ints + line * (TOP + 1), token.to(tl.int64))
            likeliest = value
    others = tl.sum(factor * (rest + tl.where(part == winner, 0.0, first)), 0)
    odds = likeliest - peak - tl.log(others)
    tl.store(floats + line * (TOP + 4), 1.0 / (1.0 + tl.exp(-odds)))
    log_risk = -tl.maximum(odds, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(odds)))
    tl.store(floats + line * (TOP + 4) + 1, tl.maximum(log_risk, -100.0))
    tl.store(floats + line * (TOP + 4) + 2, entropy)
    tl.store(floats + line * (TOP + 4) + 3, normaliser)


def figures(
    logits: Float[Tensor, "M V"], forbidden: tuple[int, ...], top: int
) -> tuple[Float[Tensor, "M F"], Int[Tensor, "M G"]]:
    """See `figures.figures`, in one pass over the vocabulary and a short one over its parts."""
    lines, vocabulary = logits.shape
    block = min(PART, triton.next_power_of_2(vocabulary))
    parts = triton.cdiv(vocabulary, block)
    make = lambda *shape, dtype: torch.empty(lines, *shape, dtype=dtype, device=logits.device)  # noqa: E731
    top_values, top_tokens = make(parts, top, dtype=torch.float), make(parts, top, dtype=torch.int32)
    sums, floats, ints = (
        make(parts, 3, dtype=torch.float),
        make(top + 4, dtype=torch.float),
        make(top + 1, dtype=torch.long),
    )
    first, second = (*forbidden, -1, -1)[:2]
    _figures_of_part[(lines, parts)](
        logits, top_values, top_tokens, sums, vocabulary, parts, first, second, BLOCK=block, TOP=top, num_warps=1
    )
    sizes = {"PARTS": triton.next_power_of_2(parts), "TOPS": triton.next_power_of_2(parts * top), "TOP": top}
    _figures[(lines,)](top_values, top_tokens, sums, floats, ints, parts, **sizes, num_warps=4)
    return floats, ints
