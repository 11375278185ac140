"""The only decode loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


@dataclass(frozen=True)
class Round:
    """One round of a decode, after its forward and before its commit.

    Attributes:
        state: what the forward read, of the canvas kept of every row.
        reading: of that state.
        proposal: what the policy commits next; None once nothing is masked.
        counts: what the decode has cost so far.
    """

    state: DecodeState
    reading: Reading
    proposal: Proposal | None
    counts: Counts


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
    """Commit until no mask is left; `on_step(state, reading)` sees every round before its commit, and only reads.

    Args:
        denoiser: predicts.
        state: where to start (`decoding.state.start`).
        policy: decides.
        attention_mask: False on left padding; None where there is none.
        sampling: how candidates are drawn.
        generator: of every draw, on the denoiser's device.
        on_step: a hook.

    Returns:
        The final state, and what it cost.

    Raises:
        RuntimeError: if the policy commits nothing in a round in which it must.
        ValueError: if a forward gives logits that are NaN or infinite.
    """
    for round_ in rounds(
        denoiser, state, policy, attention_mask=attention_mask, sampling=sampling, generator=generator
    ):
        if round_.proposal is not None and on_step is not None:
            on_step(round_.state, round_.reading)
    return round_.state, round_.counts


def rounds(
    denoiser: Denoiser,
    state: DecodeState,
    policy: Policy,
    *,
    attention_mask: Bool[Tensor, "B L"] | None = None,
    sampling: Sampling,
    generator: torch.Generator | None = None,
) -> Iterator[Round]:
    """One batched forward a round over every live canvas, then choose, propose, commit; `decode` has the arguments.

    Rows may be at different rounds, blocks and branch states; finished rows leave the batch.
    """
    counts = torch.zeros(4, len(state.tokens), dtype=torch.long, device=state.tokens.device)
    nfe, needs = 0, policy.needs
    sound = torch.ones((), dtype=torch.bool, device=state.tokens.device)  # read where the host waits anyway
    canvases, live = state.repeat(1), state.unfinished.unsqueeze(1)
    proposal = Proposal.single(state, Reading.empty(tuple(state.tokens.shape), state.tokens.device), state.reason)
    while True:
        index = (live & canvases.unfinished & sound).nonzero()  # the one small tensor the host waits for
        shape = (canvases.tokens.shape[0], canvases.tokens.shape[1])
        reading = Reading.empty(tuple(canvases.tokens.shape), index.device)
        if len(index):
            row, branch = index.unbind(-1)
            prediction = denoiser(
                canvases.tokens[row, branch],
                attention_mask=None if attention_mask is None else attention_mask[row],
                rows=canvases.feasible[row, branch],
                taps=needs.taps,
                owner=row,
                refresh=canvases.spent[row, branch] == 0,
            )
            reading = read(prediction, sampling, generator).scatter(index, shape)
            used = torch.bincount(row, minlength=shape[0])
            cost = torch.zeros_like(used).index_add(0, row, prediction.positions)
            counts = counts + torch.stack([(used > 0).long(), used, cost, (used > 1).long()])
            nfe += 1
            sound = reading.log_normaliser.isfinite().all()
        state, reading = policy.settle(canvases, proposal, reading)
        spent = Counts(counts[0], counts[1], counts[2], counts[3], nfe)
        if not len(index):
            _require_finite(sound, nfe)
            yield Round(state, reading, None, spent)
            return
        state = state.count(reading)
        proposal = policy.propose(state, reading)
        yield Round(state, reading, proposal, spent)
        canvases, live = commit(state, reading, proposal), proposal.live
        _require_progress(policy, state, canvases, nfe, sound)


def _require_finite(sound: Bool[Tensor, ""], nfe: int) -> None:
    if not bool(sound):
        cause = "a weight is damaged, or the number format overflows"
        raise ValueError(f"logits of the model must be finite, got NaN or infinity from forward {nfe} ({cause})")


def _require_progress(
    policy: Policy, before: DecodeState, after: DecodeState, nfe: int, sound: Bool[Tensor, ""]
) -> None:
    """Refuse a round without a commit, in a rule that may have some a round beyond its last, and logits that are none."""
    most = policy.needs.rounds
    if most is not None and nfe < most:
        return
    idle = after.masked.sum(-1) >= before.masked.sum(-1, keepdim=True)
    if bool((idle.all(-1) & before.unfinished).any() | ~sound):
        _require_finite(sound, nfe)
        rule = "a policy must commit a position of every unfinished row in a round"
        raise RuntimeError(f"{rule}, got none in round {nfe} from {policy!r}")
