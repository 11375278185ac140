"""The only decode loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from decoding.policy import Policy
from decoding.reading import Reading, Sampling, read
from decoding.state import DecodeState, Proposal, commit
from models.denoiser import Denoiser

OnStep = Callable[[DecodeState, Reading], None]


@dataclass(frozen=True)
class Counts:
    """What a decode cost.

    Attributes:
        rounds: sequential forwards the user of a row waits for.
        sequence_forwards: canvases of the row through the model (a k-branch round is 1 round, k sequence forwards).
        token_positions: positions computed for the row, padding not counted.
        explored: rounds in which the row ran more than one canvas.
        nfe: batched model calls.
    """

    rounds: Int[Tensor, " B"]
    sequence_forwards: Int[Tensor, " B"]
    token_positions: Int[Tensor, " B"]
    explored: Int[Tensor, " B"]
    nfe: int


@torch.inference_mode()
def decode(
    denoiser: Denoiser,
    state: DecodeState,
    policy: Policy,
    *,
    attention_mask: Bool[Tensor, "B L"] | None = None,
    sampling: Sampling,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> tuple[DecodeState, Counts]:
    """Commit until no mask is left: one batched forward a round over every live canvas, then choose, propose, commit.

    Rows may be at different rounds, blocks and branch states; finished rows leave the batch. `on_step(state, reading)` sees each
    state before the commit that follows it, and only reads.

    Raises:
        RuntimeError: if the policy commits nothing in a round.
    """
    counts = torch.zeros(4, len(state.tokens), dtype=torch.long, device=state.tokens.device)
    most = int(state.masked.sum(-1).max()) + state.layout.num_blocks  # a round leaves fewer masks, or opens a block
    nfe = 0
    canvases, live = state.repeat(1), state.unfinished.unsqueeze(1)
    proposal = Proposal.single(state, Reading.empty(tuple(state.tokens.shape), state.tokens.device), state.reason)
    while nfe <= most:
        index = (live & canvases.unfinished).nonzero()  # the one small tensor the host waits for
        shape = (canvases.tokens.shape[0], canvases.tokens.shape[1])
        reading = Reading.empty(tuple(canvases.tokens.shape), index.device)
        if len(index):
            row, branch = index.unbind(-1)
            prediction = denoiser(
                canvases.tokens[row, branch],
                attention_mask=None if attention_mask is None else attention_mask[row],
                rows=canvases.feasible[row, branch],
                taps=policy.taps,
                owner=row,
                refresh=canvases.spent[row, branch] == 0,
            )
            reading = read(prediction, sampling, generator).scatter(index, shape)
            used = torch.bincount(row, minlength=shape[0])
            cost = torch.zeros_like(used).index_add(0, row, prediction.positions)
            counts = counts + torch.stack([(used > 0).long(), used, cost, (used > 1).long()])
            nfe += 1
        state, reading = policy.settle(canvases, proposal, reading)
        if not len(index):
            return state, Counts(counts[0], counts[1], counts[2], counts[3], nfe)
        state = state.count(reading)
        if on_step is not None:
            on_step(state, reading)
        proposal = policy.propose(state, reading)
        canvases, live = commit(state, reading, proposal), proposal.live
    raise RuntimeError(f"a policy must commit a position of every unfinished row in a round, got none from {policy!r}")
