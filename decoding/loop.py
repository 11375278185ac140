"""The only decode loop."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from decoding.policy import Policy
from decoding.reading import Sampling
from decoding.rounds import OnStep as OnStep
from decoding.rounds import rounds_for
from decoding.state import DecodeState
from models.denoiser import Denoiser


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
    settings = {"attention_mask": attention_mask, "sampling": sampling, "generator": generator, "on_step": on_step}
    rounds = rounds_for(denoiser, policy, **settings)
    most = int(state.masked.sum(-1).max()) + state.layout.num_blocks  # a round leaves fewer masks, or opens a block
    carry = rounds.enter(state)
    nfe = 0
    while nfe <= most:
        sight = rounds.look(carry)
        if sight is None:
            return rounds.leave(carry), Counts(*carry.counts.unbind(0), nfe=nfe)
        carry = rounds.turn(carry, sight)
        nfe += 1
    raise RuntimeError(f"a policy must commit a position of every unfinished row in a round, got none from {policy!r}")
