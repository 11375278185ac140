# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-not-found"
"""Triton kernels of attention over a span of the canvas and its context; float32 inside, rounded once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from models.engine.place import HALF, Place
from models.engine.triton import jit

LOG2_E = 1.4426950408889634
PROCESSORS = 132  # of a Hopper GPU; decides no more than into how many parts an attention is cut


@jit
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


@jit
def _score(query, keys, SCALE: tl.constexpr, EXACT: tl.constexpr):
    if EXACT:
        return tl.dot(query, tl.trans(keys), input_precision="ieee") * SCALE
    else:
        return tl.dot(query, tl.trans(keys)) * SCALE


@jit
def _attend_span(
    query, key, value, keys, values, slot, start, count, low, seen, out, partial,
    q_n, q_h, k_n, k_h, v_n, v_h, c_n, c_h,
    rows, places, heads, group, blocks,
    SCALE: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr, SPLITS: tl.constexpr,
    DENSE: tl.constexpr, EXACT: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    pair, share = tl.program_id(1).to(tl.int64), tl.program_id(2)
    canvas, head = pair // heads, pair % heads
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    dim, tile = tl.arange(0, DIM), tl.arange(0, TILE)
    kv = head // group
    q = tl.load(query + canvas * q_n + head * q_h + row[:, None] * DIM + dim, row[:, None] < rows, other=0.0)
    lowest = tl.load(low + canvas)
    if WHOLE:
        context, begin, real = canvas, 0, rows
    else:
        context, begin, real = tl.load(slot + canvas), tl.load(start + canvas), tl.load(count + canvas)
    top = tl.full([ROWS], -1e30, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, DIM], tl.float32)
    k_base, v_base = keys + context * c_n + kv * c_h, values + context * c_n + kv * c_h
    for step in range(share * blocks, tl.minimum((share + 1) * blocks, tl.cdiv(places, TILE))):
        place = step * TILE + tile
        inside = place < places
        ok = inside & (place >= lowest) & ((place < begin) | (place >= begin + real))
        if not DENSE:
            ok = ok & (tl.load(seen + canvas * places + place, inside, other=0) != 0)
        k = tl.load(k_base + place[:, None] * DIM + dim, inside[:, None], other=0.0)
        v = tl.load(v_base + place[:, None] * DIM + dim, inside[:, None], other=0.0)
        top, total, mixed = _fold(_score(q, k, SCALE, EXACT), ok[None, :], v, top, total, mixed, EXACT)
    if share == SPLITS - 1:
        for step in range(0, tl.cdiv(rows, TILE)):
            place = step * TILE + tile
            ok = place < real
            if WHOLE:
                ok = ok & (place >= lowest)
            k = tl.load(key + canvas * k_n + kv * k_h + place[:, None] * DIM + dim, ok[:, None], other=0.0)
            v = tl.load(value + canvas * v_n + kv * v_h + place[:, None] * DIM + dim, ok[:, None], other=0.0)
            top, total, mixed = _fold(_score(q, k, SCALE, EXACT), ok[None, :], v, top, total, mixed, EXACT)
    if SPLITS == 1:
        goal = out + ((canvas * rows + row[:, None]) * heads + head) * DIM + dim
        tl.store(goal, (mixed / total[:, None]).to(out.dtype.element_ty), row[:, None] < rows)
    else:
        line = ((share * tl.num_programs(1) + pair) * rows + row) * (DIM + 2)
        tl.store(partial + line[:, None] + dim, mixed, row[:, None] < rows)
        tl.store(partial + line + DIM, top, row < rows)
        tl.store(partial + line + DIM + 1, total, row < rows)


@jit
def _merge(partial, out, rows, heads, pairs, DIM: tl.constexpr, SPLITS: tl.constexpr):
    """Parts of a softmax as one, by their log-sum-exp."""
    row, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    share, dim = tl.arange(0, SPLITS), tl.arange(0, DIM)
    line = ((share * pairs + pair) * rows + row) * (DIM + 2)
    top, total = tl.load(partial + line + DIM), tl.load(partial + line + DIM + 1)
    weight = tl.exp2(top - tl.max(top, 0))
    mixed = tl.sum(tl.load(partial + line[:, None] + dim) * weight[:, None], 0) / tl.sum(total * weight, 0)
    goal = out + ((pair // heads * rows + row) * heads + pair % heads) * DIM + dim
    tl.store(goal, mixed.to(out.dtype.element_ty))


def tiling(rows: int, pairs: int, places: int, *, exact: bool) -> tuple[int, int, int, int, int]:
    """How an attention is cut into programs: rows of one, places it reads at a time, parts of the context, warps and stages.

    Few programs wait for memory one after the other, so that few rows read the context in parts.

    Args:
        rows: of the span.
        pairs: of a canvas and a head.
        places: of the context.
        exact: in float32 or float64, where each product takes long.
    """
    few = exact and pairs * triton.cdiv(rows, 32) < PROCESSORS
    height, tile = (16 if rows <= 16 or few else 32), (32 if exact else 64)
    waves = pairs * triton.cdiv(rows, height) / PROCESSORS
    splits = 1 if waves > 0.75 or triton.cdiv(places, tile) < 4 else 2 if waves > 0.375 else 4
    return height, tile, splits, 4, 2 if exact else 3


def attend_span(
    query: Float[Tensor, "N H Q d"],
    key: Float[Tensor, "N h Q d"],
    value: Float[Tensor, "N h Q d"],
    context: tuple[Float[Tensor, "C h S d"], Float[Tensor, "C h S d"]],
    place: Place,
    scale: float,
) -> Float[Tensor, "N Q E"]:
    """See `kernels.attend_span`; rows of all tensors are dense in the last two dimensions."""
    canvases, heads, rows, dim = query.shape
    exact, pairs, places = query.dtype not in HALF, canvases * heads, context[0].shape[2]
    out = query.new_empty(canvases, rows, heads * dim)
    height, tile, splits, warps, stages = tiling(rows, pairs, places, exact=exact)
    blocks = triton.cdiv(places, tile)
    partial = query.new_empty(splits * pairs * rows * (dim + 2) if splits > 1 else 1, dtype=torch.float)
    strides = [t.stride(axis) for t in (query, key, value, context[0]) for axis in (0, 1)]
    seen = out if place.seen is None else place.seen.view(torch.uint8)
    _attend_span[(triton.cdiv(rows, height), pairs, splits)](
        query, key, value, *context, place.slot, place.start, place.count, place.low, seen, out, partial, *strides,
        rows, places, heads, heads // key.shape[1], triton.cdiv(blocks, splits),
        SCALE=scale * LOG2_E, DIM=dim, ROWS=height, TILE=tile, SPLITS=splits, DENSE=place.seen is None, EXACT=exact, WHOLE=False,
        num_warps=warps, num_stages=stages,
    )  # fmt: skip
    if splits > 1:
        _merge[(rows, pairs)](partial, out, rows, heads, pairs, DIM=dim, SPLITS=splits, num_warps=1)
    return out


def attend_whole(
    query: Float[Tensor, "N H Q d"],
    key: Float[Tensor, "N h Q d"],
    value: Float[Tensor, "N h Q d"],
    low: Int[Tensor, " N"],
    scale: float,
) -> Float[Tensor, "N Q E"]:
    """See `kernels.attend_whole`: a span that is the canvas, over no context; rows of all tensors are dense in the last two
    dimensions.

    Args:
        query, key, value: of every position.
        low: the first that is not padding.
        scale: of the logits.
    """
    canvases, heads, rows, dim = query.shape
    exact, pairs = query.dtype not in HALF, canvases * heads
    out = query.new_empty(canvases, rows, heads * dim)
    height = 16 if pairs * triton.cdiv(rows, 32) < PROCESSORS else 32
    strides = [t.stride(axis) for t in (query, key, value, key) for axis in (0, 1)]
    _attend_span[(triton.cdiv(rows, height), pairs, 1)](
        query, key, value, key, value, low, low, low, low, out, out, out, *strides,
        rows, 0, heads, heads // key.shape[1], 0,
        SCALE=scale * LOG2_E, DIM=dim, ROWS=height, TILE=32 if exact else 64, SPLITS=1, DENSE=True, EXACT=exact, WHOLE=True,
        num_warps=4, num_stages=2,
    )  # fmt: skip
    return out
