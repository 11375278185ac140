"""Which rows of which canvases a forward computes and reads, as tensor programs of fixed width between its matrix products."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import embedding

Rows = tuple[Tensor, ...]


def whole_rows(
    order: Int[Tensor, "B K"],
    chosen: Bool[Tensor, "B K"],
    slots: Int[Tensor, "B K"],
    tokens: Int[Tensor, "B K L"],
    tables: tuple[Tensor, Tensor, Tensor],
    seen: Bool[Tensor, "B L"],
    low: Int[Tensor, " B"],
    count: int,
) -> Rows:
    """Canvases computed whole: their numbers, prompts and contexts, cosine and sine, what the first block reads, what is
    added to the attention's logits at each key, and the first token of the prompt.

    Args:
        order: numbers of all canvases, those chosen first.
        chosen: canvases computed whole.
        slots: the context that each becomes, among those of its prompt.
        tokens: of all canvases.
        tables: cosine and sine of every prompt, and the embedding.
        seen: places of every prompt that hold a token.
        low: the first of them.
        count: canvases computed, the last chosen one again where there are fewer.
    """
    index = _first(order, chosen, count)
    prompt = index // order.shape[1]
    slot = prompt * order.shape[1] + slots.flatten()[index]
    cos, sin, table = tables
    padding = torch.zeros_like(seen, dtype=table.dtype).masked_fill(~seen, -torch.inf)[prompt]
    hidden = embedding(tokens.flatten(0, 1)[index], table)
    return index, prompt, slot, cos[prompt], sin[prompt], hidden, padding, low[prompt]


def part_rows(
    order: Int[Tensor, "B K"],
    chosen: Bool[Tensor, "B K"],
    spans: tuple[Tensor, Tensor, Tensor],
    tokens: Int[Tensor, "B K L"],
    tables: tuple[Tensor, Tensor, Tensor],
    low: Int[Tensor, " B"],
    size: tuple[int, int],
) -> Rows:
    """Canvases computed in part: their numbers, prompts and contexts, where their span begins, its length and its places,
    the first token of the prompt, cosine and sine, and what the first block reads.

    Args:
        order: numbers of all canvases, those chosen first.
        chosen: canvases computed in part.
        spans: context, start and length of each.
        tokens: of all canvases.
        tables: cosine and sine of every prompt, and the embedding.
        low: first place of every prompt that holds a token.
        size: canvases computed, and rows of each, the last one again where there are fewer.
    """
    index = _first(order, chosen, size[0])
    prompt = index // order.shape[1]
    slot, start, real = (one.flatten()[index] for one in spans)
    slot = prompt * order.shape[1] + slot
    step = torch.arange(size[1], device=order.device)
    where = start.unsqueeze(1) + torch.minimum(step, real.unsqueeze(1) - 1)
    cos, sin, table = tables
    at = (prompt.unsqueeze(1), where)
    hidden = embedding(tokens.flatten(0, 1)[index].gather(1, where), table)
    return index, prompt, slot, start, real, where, low[prompt], cos[at], sin[at], hidden


def read_rows(
    hidden: Float[Tensor, "N Q D"],
    canvases: tuple[Tensor, Tensor, Tensor],
    firsts: Int[Tensor, "B K"],
    source: Int[Tensor, "B L"],
    width: int,
) -> Float[Tensor, "M D"]:
    """The states that predict the rows asked for, one window after the other.

    Args:
        hidden: what the last block gives.
        canvases: number, prompt and first place of each.
        firsts: first row asked for of all canvases.
        source: where what predicts each place sits.
        width: rows of a window.
    """
    index, prompt, start = canvases
    first = firsts.flatten()[index].unsqueeze(1)
    asked = (first + torch.arange(width, device=first.device)).clamp(max=source.shape[1] - 1)
    row = (source[prompt.unsqueeze(1), asked] - start.unsqueeze(1)).clamp(0, hidden.shape[1] - 1)
    return hidden.gather(1, row.unsqueeze(-1).expand(-1, -1, hidden.shape[-1])).flatten(0, 1)


def spread_rows(
    found: tuple[Tensor, Tensor], index: Int[Tensor, " N"], firsts: Int[Tensor, "B K"], length: int
) -> tuple[Tensor, Tensor]:
    """The figures of a window at every place of its canvas, those of its ends outside.

    Args:
        found: of all windows, one after the other.
        index: numbers of the canvases.
        firsts: first row asked for of all canvases.
        length: of a canvas.
    """
    count = index.shape[0]
    floats, ints = (values.reshape(count, -1, values.shape[-1]) for values in found)
    place = torch.arange(length, device=index.device) - firsts.flatten()[index].unsqueeze(1)
    back = place.clamp(0, floats.shape[1] - 1).unsqueeze(-1)
    wide = (back.expand(-1, -1, floats.shape[-1]), back.expand(-1, -1, ints.shape[-1]))
    return floats.gather(1, wide[0]), ints.gather(1, wide[1])


def _first(order: Int[Tensor, "B K"], chosen: Bool[Tensor, "B K"], count: int) -> Int[Tensor, " N"]:
    """The first canvases of an order, the last of them repeated where there are fewer."""
    return order.flatten()[torch.minimum(torch.arange(count, device=order.device), chosen.sum() - 1)]
