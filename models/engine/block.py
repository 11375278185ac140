"""One block of the base for rows at given places: the same function for every layer, whose weights are arguments."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear

from models.engine import kernels
from models.engine.weights import BlockWeights

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def run_block(
    hidden: Float[Tensor, "N Q D"],
    weights: BlockWeights,
    rotary: tuple[Float[Tensor, "N Q d"], Float[Tensor, "N Q d"]],
    attend: Attend,
) -> Float[Tensor, "N Q D"]:
    """h + o(attend(q, k, v)), then + down(silu(gate) * up), as in Llama and Qwen2.

    Args:
        hidden: the block's input at the rows to compute.
        weights: of the block.
        rotary: cosine and sine at these rows.
        attend: queries, keys (both rotated) and values of these rows -> what attention makes of them, [N, Q, H * d].
    """
    shape = hidden.shape
    flat = hidden.reshape(-1, shape[-1])
    normed = kernels.rms_norm(flat, weights.enter, weights.eps)
    fused = _project(normed, weights.qkv, weights, "qkv", weights.qkv_bias)
    query, key, value = kernels.rotate_heads(fused.view(*shape[:2], -1), *rotary, weights)
    mixed = attend(query, key, value).reshape(len(flat), -1)
    flat = _add(flat, mixed, weights.out, weights, "out")
    normed = kernels.rms_norm(flat, weights.middle, weights.eps)
    inner = kernels.silu_mul(_project(normed, weights.gate_up, weights, "gate_up"))
    return _add(flat, inner, weights.down, weights, "down").view(shape)


def _project(x: Tensor, weight: Tensor, weights: BlockWeights, name: str, bias: Tensor | None = None) -> Tensor:
    return _low_rank(linear(x, weight, bias), x, weights, name)


def _add(residual: Tensor, x: Tensor, weight: Tensor, weights: BlockWeights, name: str) -> Tensor:
    return _low_rank(torch.addmm(residual, x, weight.t()), x, weights, name)


def _low_rank(out: Tensor, x: Tensor, weights: BlockWeights, name: str) -> Tensor:
    """Add the LoRA of a projection to its output, in place."""
    for owner, row, part in weights.low_rank:
        if owner == name:
            added = linear(linear(x.to(part.inward.dtype), part.inward), part.outward) * part.scale
            out[:, row : row + len(part.outward)] += added.to(out.dtype)
    return out
