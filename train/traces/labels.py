"""Labels of a trace: harm and benefit of a commit, judged by finishing with it and without it, or by leaving it for last.

Where the answer is not unique, the same state is finished twice and both answers are judged. Where no checker can judge, the
label is whether the token is still chosen when its position is left for last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from decoding.policies.quota import Sequential
from decoding.state import DecodeState
from decoding.traces.branches import Branches, finish, predict
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


def label_by_finishing(
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
    committed_at = branches.position.clamp(min=0).to(free.device)
    there = branches.position >= 0
    same = (candidate.gather(1, committed_at) == free.gather(1, committed_at)).cpu() & there
    differs = there & ~same
    judged = spread(differs, finished)
    changed = torch.zeros_like(same)  # the forced finish is judged otherwise than the free one
    answers = torch.full((*same.shape, free.shape[1]), -1)
    selected = judged.nonzero()
    for few in torch.split(selected, batch_size) if len(selected) else ():
        of, branch = few.unbind(1)
        index, position = of.to(free.device), branches.position[of, branch].to(free.device)
        forced = finish(denoiser, take(state, index), careful, attention_mask=attention_mask[index], forced=position)
        won = accepts(of, forced)
        changed[of, branch] = won != right[of]
        answers[of, branch] = torch.where(won.unsqueeze(1), forced.cpu(), -1)
    label = torch.where(same | judged, changed.long(), -1)
    unharmed = right.unsqueeze(1)
    inside = (state.block >= 0) & unharmed.to(free.device)
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
    index, many = valid.cumsum(1) - 1, valid.sum(1, keepdim=True).clamp(min=1)
    return valid & ((index + 1) * count // many > index * count // many)


def label_held_back(
    denoiser: Denoiser,
    state: DecodeState,
    branches: Branches,
    *,
    attention_mask: Bool[Tensor, "S L"],
    finished: int,
    batch_size: int,
) -> Verdicts:
    """Label branches by the held-back rule.

    For a branch that commits v at position i the careful decoder fills everything but i, then i: harm is 1 where its token there is
    not v. That v survives in a decode that committed it says nothing, for it always does. Benefit stays unknown. The free finish
    stands in for the reference, so that gain counts tokens that the careful decoder writes as well.

    Args:
        denoiser: the base.
        state: S states.
        branches: what was tried from them, on the CPU.
        attention_mask: False on padding.
        finished: branches of a state that are labelled, spread evenly over their kinds.
        batch_size: canvases in one decode.
    """
    device = state.tokens.device
    free = finish(denoiser, state, Sequential(), attention_mask=attention_mask)
    candidate = predict(denoiser, state.tokens, state.feasible, attention_mask).token.cpu()
    harm = torch.full_like(branches.position, -1)
    selected = spread(branches.position >= 0, finished).nonzero()
    for few in torch.split(selected, batch_size) if len(selected) else ():
        of, branch = few.unbind(1)
        position = branches.position[of, branch]
        index = of.to(device)
        last = token_left_for_last(denoiser, take(state, index), position.to(device), attention_mask[index])
        harm[of, branch] = (last.cpu() != candidate[of, position]).long()
    nothing = torch.full_like(harm, -1)
    reference = torch.where(state.block >= 0, free, -1)
    return Verdicts(reference, harm, nothing, torch.full_like(branches.token, -1))


def token_left_for_last(
    denoiser: Denoiser, state: DecodeState, position: Int[Tensor, " N"], attention_mask: Bool[Tensor, "N L"]
) -> Int[Tensor, " N"]:
    """The token at one position of each state after the careful decoder has filled all others.

    Args:
        denoiser: the base.
        state: N states.
        position: of each, the one left for last.
        attention_mask: False on padding.
    """
    there = torch.zeros_like(state.masked).scatter(1, position.unsqueeze(1), True)
    others = replace(
        state, masked=state.masked & ~there
    )  # the loop takes it for committed; the model still sees a mask
    filled = finish(denoiser, others, Sequential(), attention_mask=attention_mask)
    return predict(denoiser, filled, there, attention_mask).token.gather(1, position.unsqueeze(1)).squeeze(1)
