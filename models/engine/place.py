"""Where a span of rows stands over a context."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Place:
    """Which context each of N canvases reads, and the span of it that its own rows stand in for.

    Attributes:
        slot: the context.
        start, count: the span; of Q rows the first `count` are real.
        low: the first place of the context that holds a token.
        seen: the places that do, where those from `low` on do not all.
    """

    slot: Int[Tensor, " N"]
    start: Int[Tensor, " N"]
    count: Int[Tensor, " N"]
    low: Int[Tensor, " N"]
    seen: Bool[Tensor, "N S"] | None
