"""The steps between matrix products, each as torch operations and, on a GPU, as one Triton kernel."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention, silu

from models.engine.place import HALF, Place
from models.engine.weights import BlockWeights

# Whole canvases that one kernel attends sooner: with a mask cuDNN's takes two more to lay it out. Measured on one H200, in
# half precision up to 512 canvases times heads, in float32 with heads of 32 and 64.
SHORT, LONGEST = 192, 256  # positions, of many canvases and of few
FEW_PAIRS, FEW_ROWS = 32, 1 << 11  # canvases times heads, and in float32 times positions
NARROW = 64  # heads in float32
MOST_PAIRS = 1 << 16  # that one launch takes


def rms_norm(x: Float[Tensor, "T D"], weight: Float[Tensor, " D"], eps: float) -> Float[Tensor, "T D"]:
    """x / sqrt(mean x^2 + eps) * w, the quotient in float32 as in the native layers."""
    if x.is_cuda:
        from models.engine.triton import kernels as triton_kernels

        return triton_kernels.rms_norm(x, weight, eps)
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


def rotate_heads(
    fused: Float[Tensor, "N Q A"],
    cos: Float[Tensor, "N Q d"],
    sin: Float[Tensor, "N Q d"],
    weights: BlockWeights,
) -> tuple[Float[Tensor, "N H Q d"], Float[Tensor, "N h Q d"], Float[Tensor, "N h Q d"]]:
    """Queries and keys, rotated, and values, each by head, from the output of the fused projection.

    Args:
        fused: output of the query, key and value projection.
        cos, sin: rotary table at each place.
        weights: of the block, for the numbers of heads.
    """
    heads, rotated = weights.heads, weights.heads + weights.kv_heads
    if fused.is_cuda:
        from models.engine.triton import kernels as triton_kernels

        split = triton_kernels.rotate_heads(fused, cos, sin, rotated=rotated, head_dim=weights.head_dim)
    else:
        split = torch.unflatten(fused, -1, (-1, weights.head_dim)).transpose(1, 2)
        turned = split[:, :rotated]
        first, second = turned.chunk(2, -1)
        turned = turned * cos.unsqueeze(1) + torch.cat([-second, first], -1) * sin.unsqueeze(1)
        split = torch.cat([turned, split[:, rotated:]], 1)
    return split[:, :heads], split[:, heads:rotated], split[:, rotated:]


def silu_mul(gate_up: Float[Tensor, "T F"]) -> Float[Tensor, "T I"]:
    """silu(gate) * up of a fused projection."""
    if gate_up.is_cuda:
        from models.engine.triton import kernels as triton_kernels

        return triton_kernels.silu_mul(gate_up)
    gate, up = gate_up.chunk(2, -1)
    return silu(gate) * up


def attend_whole(
    query: Float[Tensor, "N H Q d"],
    key: Float[Tensor, "N h Q d"],
    value: Float[Tensor, "N h Q d"],
    padding: Float[Tensor, "N Q"] | None,
    low: Int[Tensor, " N"] | None,
    scale: float,
) -> Float[Tensor, "N Q E"]:
    """Attention of whole canvases over themselves, without a mask where none is padded.

    Args:
        query, key, value: of every position, keys rotated.
        padding: what is added to the logits of each key: -inf where it is padding, else 0; None where there is none.
        low: the first position that is not padding, where all after it are not; None where some are.
        scale: of the logits.
    """
    if query.is_cuda and low is not None and is_short(query):
        from models.engine.triton import attention as triton_attention

        return triton_attention.attend_whole(query, key, value, low, scale)
    mask = None if padding is None else padding[:, None, None, :]
    grouped = key.shape[1] != query.shape[1]
    mixed = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=grouped)
    return mixed.transpose(1, 2).flatten(2)


def attend_span(
    query: Float[Tensor, "N H Q d"],
    key: Float[Tensor, "N h Q d"],
    value: Float[Tensor, "N h Q d"],
    context: tuple[Float[Tensor, "C h S d"], Float[Tensor, "C h S d"]],
    place: Place,
    scale: float,
) -> Float[Tensor, "N Q E"]:
    """Attention of a span of each canvas over a shared context and over the span itself.

    The span's own keys and values stand in for those that the context holds at its places; no context is copied.

    Args:
        query, key, value: of the span's rows.
        context: keys and values of C contexts.
        place: of the span.
        scale: of the logits.
    """
    if query.is_cuda:
        from models.engine.triton import attention as triton_attention

        return triton_attention.attend_span(query, key, value, context, place, scale)
    start, count = place.start[:, None], place.count[:, None]
    here = torch.arange(context[0].shape[2], device=start.device)
    outside = (here >= place.low[:, None]) & ((here < start) | (here >= start + count))
    outside = outside if place.seen is None else outside & place.seen
    real = torch.arange(key.shape[2], device=start.device) < count
    mask = torch.cat([outside, real], 1)[:, None, None, :]
    keys, values = torch.cat([context[0][place.slot], key], 2), torch.cat([context[1][place.slot], value], 2)
    grouped = keys.shape[1] != query.shape[1]
    mixed = scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=scale, enable_gqa=grouped)
    return mixed.transpose(1, 2).flatten(2)


def add_norm(
    hidden: Float[Tensor, "T D"],
    x: Float[Tensor, "T I"],
    weight: Float[Tensor, "D I"],
    norm: Float[Tensor, " D"] | None,
    eps: float,
) -> Float[Tensor, "T D"] | None:
    """hidden += x W', in place, and the norm of the sum where a weight for it is given.

    Args:
        hidden: the residual stream, changed in place.
        x: input of the product.
        weight: W.
        norm: weight of the RMS norm behind it, or None.
        eps: of that norm.
    """
    if hidden.is_cuda:
        from models.engine.triton import kernels as triton_kernels

        if triton_kernels.is_skinny(x, weight):
            return triton_kernels.add_norm(hidden, x, weight, norm, eps)
    hidden.addmm_(x, weight.t())
    return None if norm is None else rms_norm(hidden, norm, eps)


def is_short(query: Float[Tensor, "N H Q d"]) -> bool:
    """Whether the kernel of this project attends whole canvases sooner than PyTorch's: short ones, or in float32 few of them."""
    canvases, heads, rows, dim = query.shape
    pairs = canvases * heads
    if query.dtype not in HALF:
        return rows <= LONGEST and pairs * rows <= FEW_ROWS and dim <= NARROW
    return pairs < MOST_PAIRS and (rows <= SHORT or (rows <= LONGEST and pairs <= FEW_PAIRS))
