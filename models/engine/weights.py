"""The weights of a block as the engine reads them: fused projections that the native parameters are views of."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.engine.place import HALF


@dataclass(frozen=True)
class LowRank:
    """The low-rank part of a fused projection, kept apart from its weight: y += (x A) B.

    Attributes:
        inward: A of every projection that is fused, one below the other.
        outward: their B, scaled, each in the rows and columns that are its own, zero elsewhere.
    """

    inward: Float[Tensor, "r I"]
    outward: Float[Tensor, "O r"]


@dataclass(frozen=True)
class BlockWeights:
    """What one run of the block function takes.

    Attributes:
        enter, middle: weights of the norm before the attention and of the one before the MLP.
        qkv: queries, keys and values, in this order of rows.
        qkv_bias: their bias, or None.
        out: output projection of the attention.
        gate_up: gate, then up.
        down: output projection of the MLP.
        heads, kv_heads, head_dim: of the attention.
        eps: of the norms.
        scale: of the attention's logits.
        low_rank: name of a projection (qkv, out, gate_up, down) -> its LoRA, where it has one.
    """

    enter: Float[Tensor, " D"]
    middle: Float[Tensor, " D"]
    qkv: Float[Tensor, "A D"]
    qkv_bias: Float[Tensor, " A"] | None
    out: Float[Tensor, "D E"]
    gate_up: Float[Tensor, "F D"]
    down: Float[Tensor, "D I"]
    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    scale: float
    low_rank: Mapping[str, LowRank] = field(default_factory=dict)


def read_block(block: Any) -> BlockWeights:
    """The weights of a native block, or of one with PEFT's LoRA on, whose projections become slices of fused tensors."""
    attention, mlp = block.self_attn, block.mlp
    groups = {
        "qkv": (attention.q_proj, attention.k_proj, attention.v_proj),
        "out": (attention.o_proj,),
        "gate_up": (mlp.gate_proj, mlp.up_proj),
        "down": (mlp.down_proj,),
    }
    plain = {name: [_plain(module) for module in modules] for name, modules in groups.items()}
    low_rank = {name: found for name, modules in groups.items() if (found := _low_rank(modules)) is not None}
    rows = plain["qkv"][0].weight.shape[0], plain["qkv"][1].weight.shape[0]
    return BlockWeights(
        enter=block.input_layernorm.weight.data,
        middle=block.post_attention_layernorm.weight.data,
        qkv=fuse([module.weight for module in plain["qkv"]]),
        qkv_bias=_fused_bias(plain["qkv"]),
        out=plain["out"][0].weight.data,
        gate_up=fuse([module.weight for module in plain["gate_up"]]),
        down=plain["down"][0].weight.data,
        heads=rows[0] // attention.head_dim,
        kv_heads=rows[1] // attention.head_dim,
        head_dim=attention.head_dim,
        eps=float(block.input_layernorm.variance_epsilon),
        scale=float(attention.scaling),
        low_rank=low_rank,
    )


def version_of(module: nn.Module) -> tuple[Hashable, ...]:
    """What changes when a parameter or buffer of a module is moved or written to, or a part gets another config or copy.

    A head's config and its cascade's stand in graphs as constants; a folded copy is no part of its module.
    """
    tensors = chain(module.parameters(), module.buffers())
    numbers = [n for t in tensors for n in (t.data_ptr(), 0 if t.is_inference() else t._version)]
    parts = [vars(part) for part in module.modules()]
    configs = [one for one in (part.get("config") for part in parts) if is_dataclass(one) and isinstance(one, Hashable)]
    folded = [version_of(part["folded"]) for part in parts if part.get("folded") is not None]
    return (*numbers, *configs, *folded)


def parts_of(module: nn.Module) -> list[nn.Module]:
    """A module, all its parts, and those of their folded copies."""
    parts = list(module.modules())
    folded = [vars(part)["folded"] for part in parts if vars(part).get("folded") is not None]
    return [*parts, *(inner for one in folded for inner in parts_of(one))]


def fuse(parameters: Sequence[nn.Parameter]) -> Tensor:
    """The parameters as one tensor, stacked along their rows; from now on they are views of it, and nothing is held twice."""
    first = parameters[0]
    rows = sum(len(parameter) for parameter in parameters)
    if not _adjoin(parameters):
        with torch.inference_mode(False), torch.no_grad():  # heads are fitted on these weights later
            whole = torch.cat([parameter.data for parameter in parameters])
            for parameter, part in zip(parameters, torch.split(whole, [len(p) for p in parameters]), strict=True):
                parameter.data = part
    return first.data.as_strided((rows, *first.shape[1:]), first.stride())


def _adjoin(parameters: Sequence[nn.Parameter]) -> bool:
    """Whether each parameter starts in memory where the one before ends."""
    ends = [p.data_ptr() + p.nbytes for p in parameters]
    same = all(p.untyped_storage().data_ptr() == parameters[0].untyped_storage().data_ptr() for p in parameters)
    return same and all(p.data_ptr() == end for p, end in zip(parameters[1:], ends, strict=False))


def _plain(module: Any) -> Any:
    return getattr(module, "base_layer", module)


def _fused_bias(modules: Sequence[Any]) -> Tensor | None:
    return None if modules[0].bias is None else fuse([module.bias for module in modules])


def _low_rank(modules: Sequence[Any]) -> LowRank | None:
    """LoRA of projections that are fused, as one; in half precision where the weights are, else in its own."""
    weight = _plain(modules[0]).weight
    rows = [len(_plain(module).weight) for module in modules]
    found = [(sum(rows[:n]), m, name) for n, m in enumerate(modules) for name in _adapters(m)]
    if not found:
        return None
    inward = torch.cat([module.lora_A[name].weight.data for _, module, name in found])
    dtype = weight.dtype if weight.dtype in HALF else inward.dtype
    outward = torch.zeros(sum(rows), len(inward), dtype=dtype, device=weight.device)
    column = 0
    for row, module, name in found:
        own = module.lora_B[name].weight.data * module.scaling[name]
        outward[row : row + len(own), column : column + own.shape[1]] = own
        column += own.shape[1]
    return LowRank(inward.to(dtype), outward)


def _adapters(module: Any) -> Sequence[str]:
    return module.active_adapters if hasattr(module, "lora_A") else ()
