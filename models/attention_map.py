"""The attention of a block, which the native layers do not hand out: computed again from what they leave in a tap."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from models.denoiser import Tap
from models.heads.side_stream import rotate


def attention_map(block: Any, tap: Tap) -> Float[Tensor, "N L S"]:
    """softmax(q k / sqrt(d)), the mean over heads in float32; 0 in the lines of padding.

    Args:
        block: a Llama or Qwen2 layer.
        tap: its input and keys.
    """
    attention = block.self_attn
    queries = torch.unflatten(attention.q_proj(block.input_layernorm(tap.hidden)), -1, (-1, attention.head_dim))
    queries = rotate(queries.transpose(1, 2), tap.cos.unsqueeze(1), tap.sin.unsqueeze(1))  # [N, H, L, d]
    keys = tap.keys.repeat_interleave(queries.shape[1] // tap.keys.shape[1], 1)
    scores = (queries @ keys.transpose(-1, -2)) * attention.scaling
    scores = scores.masked_fill(~tap.context[:, None, None], -torch.inf)
    weights: Tensor = scores.float().softmax(-1).mean(1)
    return weights.masked_fill(~tap.context.unsqueeze(-1), 0.0)
