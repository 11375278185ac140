# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-not-found"
"""Triton kernels of a block beside attention: norms, rotary angles, activation, and products with few rows; float32 inside,
rounded once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from models.engine.place import HALF
from models.engine.triton import jit

HEADS = 8  # heads that one program rotates
LINES, BLOCK, DEPTH, SHARES = 64, 64, 128, 2  # of a product with few rows, measured on one H200
SMALL = 1 << 22  # weights below this size are not worth a kernel of their own


@jit
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


@jit
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


@jit
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


@jit
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


@jit
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
