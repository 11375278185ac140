"""What a forward may tell beside the masks: who attends to whom, and what revealed positions would be.

A shadow row is a mask row behind a canvas that predicts a revealed position without seeing it
(WINO, arXiv 2507.18578). Attention is not handed out by the native layers, and is computed again
from what they leave in a tap.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
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


def visible(context: Bool[Tensor, "N L"], shadows: Int[Tensor, "N S"]) -> Bool[Tensor, "N M M"]:
    """Which of M = L + S positions each of them attends to.

    The canvas sees itself; a shadow row sees the canvas but for its own position, and all shadow rows.

    Args:
        context: False on padding.
        shadows: the position of each shadow row.
    """
    count, length = shadows.shape[1], context.shape[1]
    here = torch.arange(length, device=context.device)
    others = context.unsqueeze(1) & (here != shadows.unsqueeze(-1))  # [N, S, L]
    of_canvas = torch.cat([context, torch.zeros_like(shadows, dtype=torch.bool)], 1)
    of_shadows = torch.cat([others, others.new_ones(len(others), count, count)], -1)
    return torch.cat([of_canvas.unsqueeze(1).expand(-1, length, -1), of_shadows], 1)


def blind(
    hidden: Float[Tensor, "N M D"], revealed: Bool[Tensor, "N L"], shadows: Int[Tensor, "N S"]
) -> Float[Tensor, "N L D"]:
    """The hidden state that predicts each position of the canvas: of its shadow row where it is revealed and has one.

    Args:
        hidden: of the canvas and the shadow rows behind it.
        revealed: positions of the canvas that hold a token.
        shadows: the position of each shadow row.
    """
    canvas, rows = torch.split(hidden, [revealed.shape[1], shadows.shape[1]], 1)
    index = shadows.unsqueeze(-1).expand_as(rows)
    shown = torch.zeros_like(canvas).scatter(1, index, rows)
    has_one = torch.zeros_like(revealed).scatter(1, shadows, torch.ones_like(shadows, dtype=torch.bool))
    return torch.where((revealed & has_one).unsqueeze(-1), shown, canvas)
