"""Labels where no checker can judge an answer: is a token still chosen when its position is left for last?"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from decoding.branches import Branches, finish, predict
from decoding.quota import Sequential
from decoding.state import DecodeState
from models.denoiser import Denoiser
from train.harm import Verdicts, spread, take


def hold_back(
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
    pairs = spread(branches.position >= 0, finished).nonzero()
    for few in torch.split(pairs, batch_size) if len(pairs) else ():
        of, branch = few.unbind(1)
        position = branches.position[of, branch]
        index = of.to(device)
        last = token_left_for_last(denoiser, take(state, index), position.to(device), attention_mask[index])
        harm[of, branch] = (last.cpu() != candidate[of, position]).long()
    nothing = torch.full_like(harm, -1)
    reference = torch.where(state.layout.block >= 0, free, -1)
    return Verdicts(reference, harm, nothing, torch.full_like(branches.token, -1))


def token_left_for_last(
    denoiser: Denoiser, state: DecodeState, position: Int[Tensor, " N"], attention_mask: Bool[Tensor, "N L"]
) -> Int[Tensor, " N"]:
    """The token at one position of each state after the careful decoder has filled all others."""
    there = torch.zeros_like(state.masked).scatter(1, position.unsqueeze(1), True)
    others = replace(
        state, masked=state.masked & ~there
    )  # the loop takes it for committed; the model still sees a mask
    filled = finish(denoiser, others, Sequential(), attention_mask=attention_mask)
    return predict(denoiser, filled, there, attention_mask).token.gather(1, position.unsqueeze(1)).squeeze(1)
