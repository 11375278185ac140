"""The only writer of tokens: what a proposal does to the canvas, its masks, its ends and the block clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decoding.reading import Reading
from decoding.state import DecodeState, Proposal, Reason


def commit(state: DecodeState, reading: Reading, proposal: Proposal) -> DecodeState:
    """Write a proposal: K canvases per row, block clock advanced, rows past their EOS ended."""
    if proposal.states is not None:
        return proposal.states
    canvases = _noted(state, reading, proposal).repeat(proposal.tokens.shape[1])
    confidence = reading.confidence.unsqueeze(1) if proposal.confidence is None else proposal.confidence
    return _written(canvases, proposal.tokens, proposal.reason, confidence)


def commit_first(state: DecodeState, reading: Reading, proposal: Proposal) -> DecodeState:
    """What `commit` makes of the first canvas of each row, without the axis of canvases."""
    if proposal.states is not None:
        return proposal.states.map(lambda v: v[:, 0])
    confidence = reading.confidence if proposal.confidence is None else proposal.confidence[:, 0]
    return _written(_noted(state, reading, proposal), proposal.tokens[:, 0], proposal.reason[:, 0], confidence)


def _noted(state: DecodeState, reading: Reading, proposal: Proposal) -> DecodeState:
    """The state with what it keeps of a reading, and of the making of a proposal."""
    return replace(
        state,
        looks=state.looks if proposal.looks is None else state.looks + proposal.looks,
        recent_confidence=torch.stack([reading.confidence, state.recent_confidence[..., 0, :]], -2),
        recent_token=torch.stack([reading.token, state.recent_token[..., 0, :]], -2),
        memory=state.memory if proposal.memory is None else proposal.memory,
    )


def _written(
    canvases: DecodeState,
    tokens: Int[Tensor, "... L"],
    reason: Int[Tensor, "... L"],
    confidence: Float[Tensor, "... L"],
) -> DecodeState:
    taken = reason == int(Reason.REVOKED)
    new = (reason > 0) & ~taken
    round_ = canvases.round.unsqueeze(-1).expand_as(new).masked_fill(taken, -1)
    canvases = replace(
        canvases,
        tokens=tokens,
        masked=(canvases.masked & ~new) | taken,
        committed_round=torch.where(new | taken, round_, canvases.committed_round),
        committed_confidence=torch.where(new, confidence, canvases.committed_confidence.masked_fill(taken, 0.0)),
        reason=torch.where(new | taken, reason, canvases.reason),
    )
    return advance_clock(end_after_eos(canvases))


def end_after_eos(state: DecodeState) -> DecodeState:
    """Fill with EOS whatever follows a committed end before which everything is committed, tokens committed there included."""
    if state.layout.eos_id is None:
        return state
    no_mask_before = state.masked.long().cumsum(-1) == 0
    ends = (is_one_of(state.tokens, state.layout.end_ids) & (state.block >= 0) & ~state.masked & no_mask_before).long()
    past = ends.cumsum(-1) - ends > 0
    filled = state.masked & past
    return replace(
        state,
        tokens=state.tokens.masked_fill(past, state.layout.eos_id),
        masked=state.masked & ~filled,
        committed_round=torch.where(filled, state.round.unsqueeze(-1), state.committed_round),
        reason=state.reason.masked_fill(filled, int(Reason.END)),
    )


def is_one_of(tokens: Int[Tensor, "*shape"], ids: Sequence[int]) -> Bool[Tensor, "*shape"]:
    """Where a token is one of a few ids."""
    found = torch.zeros_like(tokens, dtype=torch.bool)
    for one in ids:
        found = found | (tokens == one)
    return found


def advance_clock(state: DecodeState) -> DecodeState:
    """Open the next block when its step budget N is spent or the opened blocks hold no mask (fast block diffusion)."""
    spent = state.spent + 1
    turn = ~state.feasible.any(-1)
    if state.layout.step_budget is not None:
        turn = turn | (spent >= state.layout.step_budget)
    turn = turn & (state.opened < state.num_blocks)
    return replace(state, opened=state.opened + turn.long(), spent=torch.where(turn, 0, spent))
