"""One round of a policy for a host that runs the base and keeps the canvas itself: logits in, commits out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decoding.commit import commit_first
from decoding.policy import Policy
from decoding.reading import read
from decoding.sampling import Sampling
from decoding.state import DecodeState
from models.denoiser import Prediction, Tap


@dataclass(frozen=True)
class Commits:
    """What a round writes, and what the next one starts from.

    Attributes:
        tokens: the canvas after it, mask id where nothing is committed.
        where: positions that it wrote; masked again where their token is the mask id.
        state: for the next call.
    """

    tokens: Int[Tensor, "B L"]
    where: Bool[Tensor, "B L"]
    state: DecodeState


def require_hostable(policy: Policy) -> None:
    """Refuse a policy that one forward of a host, with one canvas of each prompt, cannot serve.

    Raises:
        ValueError: saying what it needs.
    """
    needs = policy.needs
    wants = {
        "several canvases in a forward": needs.canvases > 1,
        "looks at a foretold forward": needs.looks > 0,
        "other forwards than the plain one": needs.hides or needs.shadows or needs.maps > 0 or needs.earlier,
        "distributions of committed positions": needs.committed,
        "a memory of its own": needs.memory > 0,
    }
    for what, wanted in wants.items():
        if wanted:
            raise ValueError(f"policy must need no more than a host's forward, got {type(policy).__name__}: {what}")


@torch.inference_mode()
def commits(
    policy: Policy,
    logits: Float[Tensor, "B W V"],
    taps: tuple[Tap, ...] | None,
    masked: Bool[Tensor, "B L"],
    state: DecodeState,
    *,
    first: int = 0,
    generator: torch.Generator | None = None,
) -> Commits:
    """What a policy commits after a forward of the host; reads its arguments and writes none of them.

    Args:
        policy: decides; see `require_hostable`.
        logits: of W columns, row i for position i, at temperature 1.
        taps: of the blocks that the policy's head reads (`policy.needs.taps`); None for a policy without.
        masked: positions that the host still holds a mask at: what it has filled itself is committed no more.
        state: of all columns, from `decoding.state.start` at first and then from the commits before.
        first: the column of the first logits.
        generator: of every draw, on the device of the logits; None for a policy that draws nothing.

    Raises:
        ValueError: where taps are needed and there are none.
    """
    if policy.needs.taps and not taps:
        raise ValueError(f"taps must be given to {type(policy).__name__}, whose head reads them, got none")
    state = replace(state, masked=state.masked & masked)
    known = torch.zeros_like(state.masked)
    known[:, first : first + logits.shape[1]] = True
    rows = state.feasible & known
    lines = logits[rows[:, first : first + logits.shape[1]]]
    positions = torch.full_like(state.round, state.tokens.shape[1])
    needs = policy.needs
    sampling = Sampling(forbidden=(state.layout.mask_id,), noise=needs.noise, draws=needs.draws, power=needs.power)
    reading = read(Prediction(lines, rows, positions, taps or ()), sampling, generator)
    state = state.count(reading)
    after = commit_first(state, reading, policy.propose(state, reading))
    return Commits(after.tokens, after.masked != state.masked, after)
