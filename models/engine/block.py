"""One block of the base for rows at given places: the same function for every layer, whose weights are arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear

from models.engine import kernels
from models.engine.weights import BlockWeights

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
Rotary = tuple[Float[Tensor, "N Q d"], Float[Tensor, "N Q d"]]


def run_blocks(
    hidden: Float[Tensor, "N Q D"], blocks: Sequence[BlockWeights], rotary: Rotary, attend: Callable[[int], Attend]
) -> Float[Tensor, "N Q D"]:
    """All blocks one after the other, in place of their input.

    Args:
        hidden: what the first block reads; overwritten.
        blocks: their weights.
        rotary: cosine and sine at the rows.
        attend: number of a block -> its attention; called when `hidden` is that block's input.
    """
    shape = hidden.shape
    flat = hidden.view(-1, shape[-1])
    normed: Tensor | None = kernels.rms_norm(flat, blocks[0].enter, blocks[0].eps)
    for number, weights in enumerate(blocks):
        assert normed is not None
        following = blocks[number + 1].enter if number + 1 < len(blocks) else None
        normed = _run_block(flat, normed, weights, (rotary, attend(number)), following)
    return hidden


def _run_block(
    hidden: Float[Tensor, "T D"],
    normed: Float[Tensor, "T D"],
    weights: BlockWeights,
    attention: tuple[Rotary, Attend],
    following: Float[Tensor, " D"] | None,
) -> Tensor | None:
    """h += o(attend(q, k, v)), then h += down(silu(gate) * up), as in Llama and Qwen2; the norm that the next block reads."""
    (cos, sin), attend = attention
    fused = _low_rank(linear(normed, weights.qkv, weights.qkv_bias), normed, weights, "qkv")
    query, key, value = kernels.rotate_heads(fused.view(*cos.shape[:2], -1), cos, sin, weights)
    mixed = attend(query, key, value).reshape(len(hidden), -1)
    middle = _add_norm(hidden, mixed, weights, "out", weights.middle)
    assert middle is not None
    inner = kernels.silu_mul(_low_rank(linear(middle, weights.gate_up), middle, weights, "gate_up"))
    return _add_norm(hidden, inner, weights, "down", following)


def _add_norm(hidden: Tensor, x: Tensor, weights: BlockWeights, name: str, norm: Tensor | None) -> Tensor | None:
    if name not in weights.low_rank:
        return kernels.add_norm(hidden, x, getattr(weights, name), norm, weights.eps)
    kernels.add_norm(_low_rank(hidden, x, weights, name), x, getattr(weights, name), None, weights.eps)
    return None if norm is None else kernels.rms_norm(hidden, norm, weights.eps)


def _low_rank(out: Tensor, x: Tensor, weights: BlockWeights, name: str) -> Tensor:
    """Add the LoRA of a projection to its output, in place."""
    if name in weights.low_rank:
        part = weights.low_rank[name]
        inner = linear(x.to(part.inward.dtype), part.inward)
        if out.dtype == inner.dtype:
            out.addmm_(inner, part.outward.t())
        else:
            out += linear(inner, part.outward).to(out.dtype)
    return out
