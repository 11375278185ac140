"""The states that decodes pass through, some of each prompt drawn at random."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from decoding.loop import decode
from decoding.policy import Policy, rank
from decoding.sampling import Sampling
from decoding.state import DecodeState
from models.denoiser import Denoiser


@dataclass(frozen=True)
class Visited:
    """S states that decodes passed through.

    Attributes:
        state: the states.
        row: the prompt each belongs to.
        place: its place, 0 the first, in a random order of the states kept of its prompt.
    """

    state: DecodeState
    row: Int[Tensor, " S"]
    place: Int[Tensor, " S"]


@torch.inference_mode()
def visit(
    denoiser: Denoiser,
    start: DecodeState,
    driver: Policy,
    *,
    keep: int,
    attention_mask: Bool[Tensor, "B L"] | None,
    generator: torch.Generator,
) -> Visited:
    """Decode with `driver` and keep up to `keep` of the states that each row passed through, drawn uniformly.

    Args:
        denoiser: the base.
        start: B rows before their first forward.
        driver: leads.
        keep: states of a row at most.
        attention_mask: False on padding, None without.
        generator: on the CPU; says what is kept and seeds the draws.
    """
    seen: list[DecodeState] = []
    sampling = Sampling(forbidden=(denoiser.mask_id,), noise=driver.needs.noise)
    seed = int(torch.randint(2**62, (1,), generator=generator))  # the decode draws on the device
    decode(
        denoiser,
        start,
        driver,
        attention_mask=attention_mask,
        sampling=sampling,
        generator=torch.Generator(denoiser.device).manual_seed(seed),
        on_step=lambda state, _: seen.append(state),
    )
    open_ = torch.stack([s.feasible.any(-1) for s in seen], 1)  # [B, R]
    draw = torch.rand(open_.shape, generator=generator).to(open_.device)
    ranks = rank(draw, open_)
    row, step = ((ranks < keep) & open_).nonzero().unbind(-1)
    values = {
        f.name: torch.stack([getattr(s, f.name) for s in seen], 1)[row, step]
        for f in fields(DecodeState)
        if f.name != "layout"
    }
    return Visited(DecodeState(layout=start.layout, **values), row, ranks[row, step])
