"""Harm and benefit of a commit where the answer is not unique: the same state finished with it and without it, both judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from decoding.branches import Branches, finish, predict
from decoding.quota import Sequential
from decoding.state import DecodeState
from models.denoiser import Denoiser

Accepts = Callable[[Tensor, Tensor], Tensor]  # (states [N], canvases [N, L]) -> whether each is right [N], on the CPU


@dataclass(frozen=True)
class Verdicts:
    """What became of S states and of their K branches.

    Attributes:
        reference: the right canvas of a state, -1 where none is known.
        harm, benefit: 1 or 0 where the branch was judged, else -1.
        answers: the right canvas that a judged branch led to, -1 where it has none of its own.
    """

    reference: Int[Tensor, "S L"]
    harm: Int[Tensor, "S K"]
    benefit: Int[Tensor, "S K"]
    answers: Int[Tensor, "S K L"]

    @staticmethod
    def unjudged(branches: Branches, reference: Int[Tensor, "S L"]) -> Verdicts:
        """Only the answer of the state is known."""
        nothing = torch.full_like(branches.position, -1)
        return Verdicts(reference, nothing, nothing, torch.full_like(branches.token, -1))


def judge(
    denoiser: Denoiser,
    state: DecodeState,
    branches: Branches,
    accepts: Accepts,
    *,
    attention_mask: Bool[Tensor, "S L"],
    finished: int,
    batch_size: int,
) -> Verdicts:
    """Finish each state freely, and once for each branch that forces another token than the free finish has there.

    A branch that forces what the free finish says does no harm. Harm is known where the free finish is right, benefit where
    it is wrong: an answer that is lost already cannot be harmed.

    Args:
        denoiser: the base.
        state: S states.
        branches: what was tried from them, on the CPU.
        accepts: the checker.
        attention_mask: False on padding.
        finished: branches of a state that are finished at most, spread evenly over their kinds.
        batch_size: canvases in one decode.
    """
    careful = Sequential()
    free = finish(denoiser, state, careful, attention_mask=attention_mask)
    right = accepts(torch.arange(len(free)), free)
    candidate = predict(denoiser, state.tokens, state.feasible, attention_mask).token
    place = branches.position.clamp(min=0).to(free.device)
    there = branches.position >= 0
    same = (candidate.gather(1, place) == free.gather(1, place)).cpu() & there
    differs = there & ~same
    judged = spread(differs, finished)
    changed = torch.zeros_like(same)  # the forced finish is judged otherwise than the free one
    answers = torch.full((*same.shape, free.shape[1]), -1)
    pairs = judged.nonzero()
    for few in torch.split(pairs, batch_size) if len(pairs) else ():
        of, branch = few.unbind(1)
        index, position = of.to(free.device), branches.position[of, branch].to(free.device)
        forced = finish(denoiser, take(state, index), careful, attention_mask=attention_mask[index], forced=position)
        won = accepts(of, forced)
        changed[of, branch] = won != right[of]
        answers[of, branch] = torch.where(won.unsqueeze(1), forced.cpu(), -1)
    label = torch.where(same | judged, changed.long(), -1)
    unharmed = right.unsqueeze(1)
    inside = (state.layout.block >= 0) & unharmed.to(free.device)
    return Verdicts(
        reference=torch.where(inside, free, -1),
        harm=torch.where(unharmed, label, -1),
        benefit=torch.where(unharmed, -1, label),
        answers=answers,
    )


def take(state: DecodeState, keep: Tensor) -> DecodeState:
    """The states marked True, or listed."""
    return state.map(lambda v: v[keep])


def spread(valid: Bool[Tensor, "S K"], count: int) -> Bool[Tensor, "S K"]:
    """At most `count` of the True entries of each row, evenly over their order."""
    place, many = valid.cumsum(1) - 1, valid.sum(1, keepdim=True).clamp(min=1)
    return valid & ((place + 1) * count // many > place * count // many)
