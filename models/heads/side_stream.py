"""The side-stream: the base's last blocks run once more for the masked rows only, with LoRA of its own."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from models.denoiser import Denoiser, Tap

Place = tuple[Int[Tensor, " M"], Int[Tensor, " M"]]  # canvas and column


class SideStream(nn.Module):
    """The last K blocks of the base for the masked rows only: queries of its own over the base's keys and values.

    Parameters are the base's own tensors (not copies), frozen; only LoRA adds to them. With `fork` they are copies that learn.
    The first block attends to the base's keys and values of all positions; a later one sees its own keys and values of the
    masked rows, and so does the first where the hidden states it starts from are not the base's.
    """

    def __init__(self, denoiser: Denoiser, blocks: int, *, fork: bool = False) -> None:
        super().__init__()
        base_blocks, base_norm = denoiser.blocks, denoiser.final_norm
        if blocks > len(base_blocks):
            raise ValueError(f"blocks must be at most the base's {len(base_blocks)}, got {blocks}")
        take = copy.deepcopy if fork else _share
        self.blocks = nn.ModuleList(take(b) for b in list(base_blocks)[-blocks:])
        self.norm = take(base_norm)
        self.requires_grad_(fork)

    def forward(
        self, taps: tuple[Tap, ...], place: Place, changed: Float[Tensor, "M D"] | None = None
    ) -> Float[Tensor, "M D"]:
        """Hidden states after the final norm at `place`, in row-major order, from the base's or from `changed` ones."""
        hidden = taps[0].hidden[place] if changed is None else changed
        for depth, (block, tap) in enumerate(zip(self.blocks, taps, strict=True)):
            hidden = _run_block(block, hidden, tap, place, own_keys=changed is not None or depth > 0)
        normed: Tensor = self.norm(hidden)
        return normed


def predicting(tap: Tap, rows: Bool[Tensor, "N L"]) -> Place:
    """Canvas and column of the hidden state that predicts each of the rows."""
    canvas = torch.arange(rows.shape[0], device=rows.device).unsqueeze(1).expand(rows.shape)
    return canvas[rows], tap.source[rows]


def _share(module: nn.Module) -> nn.Module:
    """A copy of the module tree whose parameters and buffers are the original tensors."""
    tensors = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(t): t for t in tensors})


def _run_block(
    block: Any, hidden: Float[Tensor, "M D"], tap: Tap, place: Place, *, own_keys: bool
) -> Float[Tensor, "M D"]:
    """One Llama or Qwen2 block for the packed rows; linear layers see the rows only."""
    attention = block.self_attn
    normed = block.input_layernorm(hidden)
    cos, sin = tap.cos[place].unsqueeze(1), tap.sin[place].unsqueeze(1)

    def heads(projection: nn.Module) -> Tensor:
        return torch.unflatten(projection(normed), -1, (-1, attention.head_dim))  # [M, H, d]

    query = rotate(heads(attention.q_proj), cos, sin)
    keys, values = tap.keys, tap.values
    if own_keys:
        keys = _replace(keys, rotate(heads(attention.k_proj), cos, sin), place)
        values = _replace(values, heads(attention.v_proj), place)
    seat = _seats(place[0], len(tap.source))
    dense = query.new_zeros(len(tap.source), int(seat.max()) + 1 if len(seat) else 1, *query.shape[1:])
    dense[place[0], seat] = query
    attended = scaled_dot_product_attention(
        dense.transpose(1, 2),
        keys,
        values,
        attn_mask=tap.context[:, None, None, :],
        scale=attention.scaling,
        enable_gqa=keys.shape[1] != query.shape[1],
    )
    hidden = hidden + attention.o_proj(attended.transpose(1, 2)[place[0], seat].flatten(1))
    changed: Tensor = hidden + block.mlp(block.post_attention_layernorm(hidden))
    return changed


def _seats(canvas: Int[Tensor, " M"], canvases: int) -> Int[Tensor, " M"]:
    """The running number of each packed row within its canvas, so that attention computes no query but theirs."""
    count = torch.bincount(canvas, minlength=canvases)
    return torch.arange(len(canvas), device=canvas.device) - (count.cumsum(0) - count)[canvas]


def _replace(context: Float[Tensor, "N H S d"], computed: Float[Tensor, "M H d"], place: Place) -> Tensor:
    """The context with the rows' own keys (or values) in place of the base's."""
    context = context.transpose(1, 2).clone()
    context[place] = computed
    return context.transpose(1, 2)


def rotate(x: Float[Tensor, "... d"], cos: Float[Tensor, "... d"], sin: Float[Tensor, "... d"]) -> Tensor:
    """Queries or keys turned by their position (rotary embedding)."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


LORA_TARGETS = ("q_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
OWN_KEYS = ("k_proj", "v_proj")


def with_lora(stream: SideStream, *, rank: int, alpha: int, dropout: float, own_keys: bool = False) -> nn.Module:
    """LoRA on q, attention output and the MLP; on k and v only with `own_keys`, else the stream reads the base's values.

    Args:
        stream: the blocks that run again.
        rank, alpha: of the LoRA, at least 1.
        dropout: in [0, 1).
        own_keys: adapt keys and values as well.
    """
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer

    targets = LORA_TARGETS + (OWN_KEYS if own_keys else ())
    lora = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(targets))
    adapted = get_peft_model(cast(Any, stream), lora)
    matched = sum(isinstance(m, LoraLayer) for m in adapted.modules())
    expected = len(stream.blocks) * len(targets)
    if matched != expected:
        raise ValueError(f"LoRA must match {expected} modules ({', '.join(targets)}), got {matched}")
    return cast(nn.Module, adapted)


def load_lora(stream: nn.Module, folder: Path) -> None:
    """Load the adapter that PEFT's `save_pretrained` wrote into `folder`; ValueError where it is missing or foreign."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise ValueError(f"a LoRA head folder must hold adapter_model.safetensors, got {folder}")
    try:
        stored = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} must be a whole safetensors file, got a broken one") from error
    expected = get_peft_model_state_dict(cast(Any, stream))
    if {k: v.shape for k, v in stored.items()} != {k: v.shape for k, v in expected.items()}:
        raise ValueError(f"{file} must hold the {len(expected)} LoRA matrices of this head, got other names or shapes")
    set_peft_model_state_dict(cast(Any, stream), stored)
