# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-not-found"
"""Triton kernels of the engine; every one computes in float32 and rounds once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from models.engine.place import HALF, Place

HEADS = 8  # heads that one program rotates
PROCESSORS = 132  # of a Hopper GPU; decides no more than into how many parts an attention is cut
LINES, BLOCK, DEPTH, SHARES = 64, 64, 128, 2  # of a product with few rows, measured on one H200
PART = 1024  # of the vocabulary, which one warp reads
SMALL = 1 << 22  # weights below this size are not worth a kernel of their own


@triton.jit
def _rms_norm(x, weight, out, width, EPS: tl.constexpr, BLOCK: tl.constexpr):
    row, place = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = place < width
    value = tl.load(x + row * width + place, inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, 0) / width + EPS)
    factor = tl.load(weight + place, inside, other=0.0)
    normed = (value * scale).to(out.dtype.element_ty)
    tl.store(out + row * width + place, normed * factor, inside)


def rms_norm(x: Float[Tensor, "T D"], weight: Float[Tensor, " D"], eps: float) -> Float[Tensor, "T D"]:
    """See `kernels.rms_norm`."""
    out = torch.empty_like(x)
    block = triton.next_power_of_2(x.shape[1])
    _rms_norm[(len(x),)](x, weight, out, x.shape[1], EPS=eps, BLOCK=block, num_warps=8 if block >= 2048 else 4)
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
    """All heads of a fused projection, the first `rotated` of them turned by the angle of their place.

    Args:
        fused: output of the query, key and value projection.
        cos, sin: rotary table at each place.
        rotated: heads that are turned.
        head_dim: width of a head.
    """
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
def _score(query, keys, SCALE: tl.constexpr, EXACT: tl.constexpr):
    if EXACT:
        return tl.dot(query, tl.trans(keys), input_precision="ieee") * SCALE
    else:
        return tl.dot(query, tl.trans(keys)) * SCALE


@triton.jit
def _attend_span(
    query, key, value, keys, values, slot, start, count, low, seen, out, partial,
    q_n, q_h, k_n, k_h, v_n, v_h, c_n, c_h,
    rows, places, heads, group, blocks,
    SCALE: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr, SPLITS: tl.constexpr,
    DENSE: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    pair, share = tl.program_id(1).to(tl.int64), tl.program_id(2)
    canvas, head = pair // heads, pair % heads
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    dim, tile = tl.arange(0, DIM), tl.arange(0, TILE)
    kv = head // group
    q = tl.load(query + canvas * q_n + head * q_h + row[:, None] * DIM + dim, row[:, None] < rows, other=0.0)
    context, begin, real, lowest = (
        tl.load(slot + canvas),
        tl.load(start + canvas),
        tl.load(count + canvas),
        tl.load(low + canvas),
    )
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


@triton.jit
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
    height, tile = (16 if rows <= 16 else 32), (32 if exact else 64)
    blocks = triton.cdiv(places, tile)
    waves = pairs * triton.cdiv(rows, height) / PROCESSORS
    splits = (
        1 if waves > 0.75 or blocks < 4 else 2 if waves > 0.375 else 4
    )  # few programs wait for memory, one after the other
    partial = query.new_empty(splits * pairs * rows * (dim + 2) if splits > 1 else 1, dtype=torch.float)
    strides = [t.stride(axis) for t in (query, key, value, context[0]) for axis in (0, 1)]
    seen = out if place.seen is None else place.seen.view(torch.uint8)
    _attend_span[(triton.cdiv(rows, height), pairs, splits)](
        query, key, value, *context, place.slot, place.start, place.count, place.low, seen, out, partial, *strides,
        rows, places, heads, heads // key.shape[1], triton.cdiv(blocks, splits),
        SCALE=scale * 1.4426950408889634, DIM=dim, ROWS=height, TILE=tile, SPLITS=splits, DENSE=place.seen is None, EXACT=exact,
        num_warps=4, num_stages=2 if exact else 3,
    )  # fmt: skip
    if splits > 1:
        _merge[(rows, pairs)](partial, out, rows, heads, pairs, DIM=dim, SPLITS=splits, num_warps=1)
    return out


@triton.jit
def _skinny(
    x, weight, partial, lines, wide, deep,
    LINES: tl.constexpr, BLOCK: tl.constexpr, DEPTH: tl.constexpr, SHARES: tl.constexpr,
):  # fmt: skip
    here, share = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1)
    line, step = tl.arange(0, LINES), tl.arange(0, DEPTH)
    each = deep // SHARES
    w = weight + here[:, None].to(tl.int64) * deep + share * each + step[None, :]
    v = x + line[None, :] * deep + share * each + step[:, None]
    found = tl.zeros([BLOCK, LINES], tl.float32)
    for _ in range(0, each, DEPTH):
        found += tl.dot(tl.load(w), tl.load(v, line[None, :] < lines, other=0.0))
        w += DEPTH
        v += DEPTH
    goal = partial + (share * lines + line[None, :]) * wide + here[:, None]
    tl.store(goal, found, line[None, :] < lines)


@triton.jit
def _add_norm(
    hidden,
    partial,
    weight,
    normed,
    lines,
    width,
    EPS: tl.constexpr,
    SHARES: tl.constexpr,
    NORM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row, place = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = place < width
    value = tl.load(hidden + row * width + place, inside, other=0.0).to(tl.float32)
    for share in tl.static_range(SHARES):
        value += tl.load(partial + (share * lines + row) * width + place, inside, other=0.0)
    value = value.to(hidden.dtype.element_ty)
    tl.store(hidden + row * width + place, value, inside)
    if NORM:
        wide = value.to(tl.float32)
        scale = tl.rsqrt(tl.sum(wide * wide, 0) / width + EPS)
        factor = tl.load(weight + place, inside, other=0.0)
        tl.store(normed + row * width + place, (wide * scale).to(normed.dtype.element_ty) * factor, inside)


def is_skinny(x: Float[Tensor, "T I"], weight: Float[Tensor, "D I"]) -> bool:
    """Whether `add_norm` serves: a few rows, where the product waits for the weight."""
    fits = weight.shape[0] % BLOCK == 0 and weight.shape[1] % (SHARES * DEPTH) == 0
    return x.is_cuda and len(x) <= LINES and x.dtype in HALF and fits and weight.numel() >= SMALL


def add_norm(
    hidden: Float[Tensor, "T D"],
    x: Float[Tensor, "T I"],
    weight: Float[Tensor, "D I"],
    norm: Float[Tensor, " D"] | None,
    eps: float,
) -> Float[Tensor, "T D"] | None:
    """hidden += x W', in place, and its norm: two shares of the sum side by side, put together where it is read next.

    Args:
        hidden: the residual stream, changed in place.
        x: input of the product.
        weight: W.
        norm: weight of the RMS norm behind it, or None.
        eps: of that norm.
    """
    lines, width = hidden.shape
    partial = torch.empty(SHARES, lines, width, dtype=torch.float, device=hidden.device)
    _skinny[(width // BLOCK, SHARES)](
        x, weight, partial, lines, width, x.shape[1],
        LINES=32 if lines <= 32 else 64, BLOCK=BLOCK, DEPTH=DEPTH, SHARES=SHARES, num_warps=4, num_stages=4,
    )  # fmt: skip
    normed = None if norm is None else torch.empty_like(hidden)
    block = triton.next_power_of_2(width)
    _add_norm[(lines,)](
        hidden,
        partial,
        norm,
        normed,
        lines,
        width,
        EPS=eps,
        SHARES=SHARES,
        NORM=norm is not None,
        BLOCK=block,
        num_warps=8,
    )
    return normed


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
