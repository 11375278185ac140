"""Triton kernels of the engine; every one computes in float32 and rounds once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float, Int
from torch import Tensor

HEADS = 8  # heads that one program rotates
NONE = -1e30


@triton.jit
def _rms_norm(x, weight, out, width, eps, BLOCK: tl.constexpr):
    row, place = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = place < width
    value = tl.load(x + row * width + place, inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, 0) / width + eps)
    factor = tl.load(weight + place, inside, other=0.0)
    normed = (value * scale).to(out.dtype.element_ty)
    tl.store(out + row * width + place, normed * factor, inside)


def rms_norm(x: Float[Tensor, "T D"], weight: Float[Tensor, " D"], eps: float) -> Float[Tensor, "T D"]:
    """See `kernels.rms_norm`."""
    out = torch.empty_like(x)
    block = triton.next_power_of_2(x.shape[1])
    _rms_norm[(len(x),)](x, weight, out, x.shape[1], eps, BLOCK=block, num_warps=8 if block >= 2048 else 4)
    return out


@triton.jit
def _rotate(fused, cos, sin, out, rows, heads, rotated, HALF: tl.constexpr, GROUP: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    canvas, row = token // rows, token % rows
    head = tl.program_id(1) * GROUP + tl.arange(0, GROUP)[:, None]
    place = tl.arange(0, HALF)[None, :]
    inside = head < heads
    source = fused + token * heads * 2 * HALF + head * 2 * HALF + place
    first = tl.load(source, inside, other=0.0).to(tl.float32)
    second = tl.load(source + HALF, inside, other=0.0).to(tl.float32)
    c = tl.load(cos + token * 2 * HALF + place).to(tl.float32)
    s = tl.load(sin + token * 2 * HALF + place).to(tl.float32)
    turn = head < rotated
    goal = out + ((canvas * heads + head) * rows + row) * 2 * HALF + place
    tl.store(goal, tl.where(turn, first * c - second * s, first).to(out.dtype.element_ty), inside)
    tl.store(goal + HALF, tl.where(turn, second * c + first * s, second).to(out.dtype.element_ty), inside)


def rotate_heads(
    fused: Float[Tensor, "N Q A"],
    cos: Float[Tensor, "N Q d"],
    sin: Float[Tensor, "N Q d"],
    *,
    rotated: int,
    head_dim: int,
) -> Float[Tensor, "N G Q d"]:
    """All heads of a fused projection, the first `rotated` of them turned by the angle of their place."""
    canvases, rows, width = fused.shape
    heads = width // head_dim
    out = fused.new_empty(canvases, heads, rows, head_dim)
    grid = (canvases * rows, triton.cdiv(heads, HEADS))
    _rotate[grid](fused, cos, sin, out, rows, heads, rotated, HALF=head_dim // 2, GROUP=HEADS, num_warps=2)
    return out


@triton.jit
def _silu_mul(gate_up, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < width
    gate = tl.load(gate_up + row * 2 * width + place, inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * width + width + place, inside, other=0.0).to(tl.float32)
    tl.store(out + row * width + place, (gate / (1.0 + tl.exp(-gate)) * up).to(out.dtype.element_ty), inside)


def silu_mul(gate_up: Float[Tensor, "T F"]) -> Float[Tensor, "T I"]:
    """See `kernels.silu_mul`."""
    width = gate_up.shape[1] // 2
    out = gate_up.new_empty(len(gate_up), width)
    _silu_mul[(len(gate_up), triton.cdiv(width, 1024))](gate_up, out, width, BLOCK=1024, num_warps=4)
    return out


@triton.jit
def _fold(score, ok, values, top, total, mixed, EXACT: tl.constexpr):
    """One more tile of keys in a running softmax."""
    score = tl.where(ok, score, -1e30)
    new = tl.maximum(top, tl.max(score, 1))
    weight = tl.where(ok, tl.exp2(score - new[:, None]), 0.0)
    shrink = tl.exp2(top - new)
    total = total * shrink + tl.sum(weight, 1)
    mixed = mixed * shrink[:, None]
    if EXACT:
        mixed += tl.dot(weight, values, input_precision="ieee")
    else:
        mixed += tl.dot(weight.to(values.dtype), values)
    return new, total, mixed


@triton.jit
def _score(query, keys, scale, EXACT: tl.constexpr):
    if EXACT:
        return tl.dot(query, tl.trans(keys), input_precision="ieee") * scale
    else:
        return tl.dot(query, tl.trans(keys)) * scale


@triton.jit
def _attend_span(
    query, key, value, keys, values, slot, start, count, seen, out,
    q_n, q_h, k_n, k_h, v_n, v_h, c_n, c_h,
    rows, places, heads, group, scale,
    DIM: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    canvas, head = tl.program_id(1).to(tl.int64) // heads, tl.program_id(1).to(tl.int64) % heads
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    dim, tile = tl.arange(0, DIM), tl.arange(0, TILE)
    kv = head // group
    q = tl.load(query + canvas * q_n + head * q_h + row[:, None] * DIM + dim, row[:, None] < rows, other=0.0)
    context, begin, real = tl.load(slot + canvas), tl.load(start + canvas), tl.load(count + canvas)
    top = tl.full([ROWS], -1e30, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, DIM], tl.float32)
    for low in range(0, places, TILE):
        place = low + tile
        inside = place < places
        held = tl.load(seen + canvas * places + place, inside, other=0) != 0
        ok = held & ((place < begin) | (place >= begin + real))
        source = context * c_n + kv * c_h + place[:, None] * DIM + dim
        k = tl.load(keys + source, inside[:, None], other=0.0)
        v = tl.load(values + source, inside[:, None], other=0.0)
        top, total, mixed = _fold(_score(q, k, scale, EXACT), ok[None, :], v, top, total, mixed, EXACT)
    for low in range(0, rows, TILE):
        place = low + tile
        ok = place < real
        k = tl.load(key + canvas * k_n + kv * k_h + place[:, None] * DIM + dim, ok[:, None], other=0.0)
        v = tl.load(value + canvas * v_n + kv * v_h + place[:, None] * DIM + dim, ok[:, None], other=0.0)
        top, total, mixed = _fold(_score(q, k, scale, EXACT), ok[None, :], v, top, total, mixed, EXACT)
    mixed = mixed / total[:, None]
    goal = out + ((canvas * rows + row[:, None]) * heads + head) * DIM + dim
    tl.store(goal, mixed.to(out.dtype.element_ty), row[:, None] < rows)


def attend_span(
    query: Float[Tensor, "N H Q d"],
    key: Float[Tensor, "N h Q d"],
    value: Float[Tensor, "N h Q d"],
    context: tuple[Float[Tensor, "C h S d"], Float[Tensor, "C h S d"]],
    where: tuple[Int[Tensor, " N"], Int[Tensor, " N"], Int[Tensor, " N"], Bool[Tensor, "N S"]],
    scale: float,
) -> Float[Tensor, "N Q E"]:
    """See `kernels.attend_span`; rows of all tensors are dense in the last two dimensions."""
    canvases, heads, rows, dim = query.shape
    exact = query.dtype not in (torch.bfloat16, torch.float16)
    slot, start, count, seen = where
    out = query.new_empty(canvases, rows, heads * dim)
    tile = 16 if rows <= 16 else 32
    strides = [t.stride(axis) for t in (query, key, value, context[0]) for axis in (0, 1)]
    _attend_span[(triton.cdiv(rows, tile), canvases * heads)](
        query, key, value, *context, slot, start, count, seen.to(torch.uint8), out, *strides,
        rows, seen.shape[1], heads, heads // key.shape[1], scale * 1.4426950408889634,
        DIM=dim, ROWS=tile, TILE=32 if exact else 64, EXACT=exact, num_warps=4, num_stages=2 if exact else 3,
    )  # fmt: skip
    return out


@triton.jit
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
            chosen = index
    rest = tl.sum(tl.where(tl.arange(0, BLOCK) == chosen, 0.0, weight), 0)
    leaned = tl.sum(tl.where(weight > 0, weight * (z - highest), 0.0), 0)
    tl.store(sums + here * 3, highest)
    tl.store(sums + here * 3 + 1, rest)
    tl.store(sums + here * 3 + 2, leaned)


@triton.jit
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
    for rank in tl.static_range(TOP):
        value, index = tl.max(values, 0, return_indices=True)
        token = tl.load(top_tokens + line * parts * TOP + index)
        tl.store(ints + line * (TOP + 1) + 1 + rank, token.to(tl.int64))
        tl.store(floats + line * (TOP + 4) + 4 + rank, tl.maximum(value - normaliser, -100.0))
        values = tl.where(place == index, -float("inf"), values)
        if rank == 0:
            winner = index // TOP
            tl.store(ints + line * (TOP + 1), token.to(tl.int64))
            tl.store(floats + line * (TOP + 4), tl.exp(value - normaliser))
    others = tl.sum(factor * (rest + tl.where(part == winner, 0.0, first)), 0)
    tl.store(floats + line * (TOP + 4) + 1, tl.maximum(peak + tl.log(others) - normaliser, -100.0))
    tl.store(floats + line * (TOP + 4) + 2, entropy)
    tl.store(floats + line * (TOP + 4) + 3, normaliser)


def figures(
    logits: Float[Tensor, "M V"], forbidden: tuple[int, ...], top: int
) -> tuple[Float[Tensor, "M F"], Int[Tensor, "M G"]]:
    """See `figures.figures`, in one pass over the vocabulary and a short one over its parts."""
    lines, vocabulary = logits.shape
    block = min(4096, triton.next_power_of_2(vocabulary))
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
        logits, top_values, top_tokens, sums, vocabulary, parts, first, second, BLOCK=block, TOP=top, num_warps=4
    )
    sizes = {"PARTS": triton.next_power_of_2(parts), "TOPS": triton.next_power_of_2(parts * top), "TOP": top}
    _figures[(lines,)](top_values, top_tokens, sums, floats, ints, parts, **sizes, num_warps=1)
    return floats, ints
