"""What a round computes: for every canvas the context it reads, and which of its rows are computed anew.

The same rules as `models.block_cache`, as a tensor program of fixed shape: a prompt has as many places for contexts as canvases.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

FRESH = 1 << 40  # age of a place that holds nothing


@dataclass(frozen=True)
class Contexts:
    """The contexts of each prompt: canvases at the forward that opened their block.

    Attributes:
        tokens: the canvases then.
        start, end: what is computed anew until the next opening, [start, end).
        valid: places that hold one.
        age: which of them is older.
    """

    tokens: Int[Tensor, "B K L"]
    start: Int[Tensor, "B K"]
    end: Int[Tensor, "B K"]
    valid: Bool[Tensor, "B K"]
    age: Int[Tensor, "B K"]


@dataclass(frozen=True)
class Plan:
    """What a round computes; without a cache `slot`, `start`, `count` and `part_order` say nothing.

    Attributes:
        part, whole: canvases computed in part, over a context, and whole.
        slot: the context that a canvas reads, or that it becomes.
        start, count: the span computed of a canvas in part.
        first: the first row asked for.
        positions: rows computed, padding not counted.
        part_order, whole_order: numbers of all canvases, those computed in part first, or those computed whole.
        flags: canvases in part, canvases whole, the widest span, the widest run of rows asked for, the alarm, and of every
            prompt whether it runs; all that a host need read.
    """

    part: Bool[Tensor, "B K"]
    whole: Bool[Tensor, "B K"]
    slot: Int[Tensor, "B K"]
    start: Int[Tensor, "B K"]
    count: Int[Tensor, "B K"]
    first: Int[Tensor, "B K"]
    positions: Int[Tensor, "B K"]
    part_order: Int[Tensor, "B K"]
    whole_order: Int[Tensor, "B K"]
    flags: Int[Tensor, " 5+B"]


def empty_contexts(prompts: int, canvases: int, length: int, device: torch.device) -> Contexts:
    """No context at all.

    Args:
        prompts: B.
        canvases: K of each.
        length: of a canvas.
        device: of the buffers.
    """
    zeros = torch.zeros(prompts, canvases, dtype=torch.long, device=device)
    tokens = torch.zeros(prompts, canvases, length, dtype=torch.long, device=device)
    return Contexts(tokens, zeros, zeros.clone(), zeros.bool(), zeros.clone())


def empty_plan(prompts: int, canvases: int, device: torch.device) -> Plan:
    """A plan to compute nothing.

    Args:
        prompts: B.
        canvases: K of each.
        device: of the buffers.
    """
    zeros = torch.zeros(prompts, canvases, dtype=torch.long, device=device)
    numbers = {f.name: zeros.clone() for f in fields(Plan)} | {name: zeros.bool() for name in ("part", "whole")}
    return Plan(**numbers | {"flags": torch.zeros(5 + prompts, dtype=torch.long, device=device)})


def make_plan(
    before: Plan,
    contexts: Contexts,
    tokens: Int[Tensor, "B K L"],
    rows: Bool[Tensor, "B K L"],
    live: Bool[Tensor, "B K"],
    refresh: Bool[Tensor, "B K"],
    *,
    size: Int[Tensor, " B"],
    mask_id: int,
    mode: str,
    shift: int,
    alarm: Int[Tensor, ""],
) -> tuple[Plan, Contexts]:
    """What to compute of every live canvas, and the contexts there will be after it; without a cache those there are.

    Args:
        before: the last plan; what a round without a cache leaves alone stays as it is there.
        contexts: of the prompts.
        tokens: the canvases.
        rows: positions whose distribution is wanted.
        live: canvases that run.
        refresh: canvases whose block has just opened.
        size: positions of each prompt that hold a token.
        mask_id: id of the mask token.
        mode: none, prefix or dual.
        shift: places before a position where what predicts it sits.
        alarm: something else that the host must know.
    """
    length = tokens.shape[-1]
    first = rows.long().argmax(-1)
    end = length - rows.flip(-1).long().argmax(-1)
    asked = ((end - first) * live).amax()
    if mode == "none":
        none = torch.zeros_like(alarm)
        order, flags = order_of(live.flatten()).view_as(first), _flags((none, live.sum(), none, asked, alarm), live)
        positions = size.unsqueeze(-1) * live
        return replace(before, whole=live, first=first, positions=positions, whole_order=order, flags=flags), contexts
    entry, fits = _fitting(contexts, tokens, rows, live, mask_id)
    part = live & fits & ~refresh
    whole = live & ~part
    used = (part.unsqueeze(-1) & (entry.unsqueeze(-1) == _numbers(live))).any(1)
    turn = (whole.long().cumsum(-1) - 1).clamp(min=0)  # a canvas computed whole takes the next free place
    slot = torch.where(part, entry, order_of(~used).gather(-1, turn))
    start = (contexts.start.gather(-1, entry) - shift).clamp(min=0)
    count = contexts.end.gather(-1, entry) - start
    plan = Plan(
        part=part,
        whole=whole,
        slot=slot,
        start=start,
        count=count,
        first=first,
        positions=torch.where(part, count, size.unsqueeze(-1)) * live,
        part_order=order_of(part.flatten()).view_as(slot),
        whole_order=order_of(whole.flatten()).view_as(slot),
        flags=_flags((part.sum(), whole.sum(), (count * part).amax(), asked, alarm), live),
    )
    return plan, _with_new(contexts, plan, tokens, used, length if mode == "prefix" else end)


def _flags(numbers: tuple[Tensor, ...], live: Bool[Tensor, "B K"]) -> Int[Tensor, " 5+B"]:
    place = torch.arange(len(numbers) + len(live), device=live.device)
    flags = live.any(-1).long()[(place - len(numbers)).clamp(min=0)]
    for index, number in enumerate(numbers):
        flags = torch.where(place == index, number, flags)
    return flags


def order_of(chosen: Bool[Tensor, "... C"]) -> Int[Tensor, "... C"]:
    """The numbers 0 to C - 1, those chosen first and otherwise in order."""
    place, numbers = places_of(chosen), _numbers(chosen)
    if torch.compiler.is_compiling():
        return (place.unsqueeze(-2) == numbers.unsqueeze(-1)).long().argmax(-1)
    return torch.zeros_like(place).scatter(-1, place, numbers.expand_as(place))


def places_of(chosen: Bool[Tensor, "... C"]) -> Int[Tensor, "... C"]:
    """Where each of the numbers 0 to C - 1 stands in that order: in a compiled program counted pair by pair, in one launch."""
    if torch.compiler.is_compiling():
        number, own, other = _numbers(chosen), chosen.unsqueeze(-1), chosen.unsqueeze(-2)
        return ((other & ~own) | ((other == own) & (number < number.unsqueeze(-1)))).sum(-1)
    first, later = chosen.long().cumsum(-1), (~chosen).long().cumsum(-1)
    return torch.where(chosen, first, first[..., -1:] + later) - 1


def _numbers(of: Tensor) -> Tensor:
    return torch.arange(of.shape[-1], device=of.device)


def _fitting(
    contexts: Contexts, tokens: Tensor, rows: Tensor, live: Bool[Tensor, "B K"], mask_id: int
) -> tuple[Int[Tensor, "B K"], Bool[Tensor, "B K"]]:
    """The oldest context that a canvas can read: one that all live canvases of the prompt agree with, revealed so far."""
    held = contexts.tokens.unsqueeze(1)
    agrees = ((held == tokens.unsqueeze(2)) | (held == mask_id)).all(-1)  # [B, canvas, context]
    chosen = contexts.valid & ~(live.unsqueeze(-1) & ~agrees).any(1)
    place = _numbers(tokens)
    outside = (place < contexts.start.unsqueeze(-1)) | (place >= contexts.end.unsqueeze(-1))
    fits = chosen.unsqueeze(1) & ~(rows.unsqueeze(2) & outside.unsqueeze(1)).any(-1)
    age = torch.where(fits, contexts.age.unsqueeze(1), FRESH)
    return age.argmin(-1), fits.any(-1)


def _with_new(
    contexts: Contexts, plan: Plan, tokens: Tensor, used: Bool[Tensor, "B K"], end: Int[Tensor, "B K"] | int
) -> Contexts:
    """The contexts in use, and those that the canvases computed whole become."""
    becomes = plan.whole.unsqueeze(-1) & (plan.slot.unsqueeze(-1) == _numbers(plan.slot))  # [B, canvas, context]
    new, source = becomes.any(1), becomes.long().argmax(1)
    ends = torch.full_like(source, end) if isinstance(end, int) else end.gather(-1, source)
    return Contexts(
        tokens=torch.where(
            new.unsqueeze(-1), tokens.gather(1, source.unsqueeze(-1).expand_as(tokens)), contexts.tokens
        ),
        start=torch.where(new, plan.first.gather(-1, source), contexts.start),
        end=torch.where(new, ends, contexts.end),
        valid=new | used,
        age=torch.where(new, contexts.age.amax(-1, keepdim=True) + 1 + source, contexts.age),
    )
