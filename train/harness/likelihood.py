"""The likelihood bound of a masked diffusion model, drawn by Monte Carlo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.denoiser import Denoiser


@dataclass(frozen=True)
class Estimate:
    """A Monte-Carlo estimate.

    Attributes:
        value: the mean, in nats.
        error: its standard error; 0 for one draw.
    """

    value: float
    error: float


@torch.inference_mode()
def log_likelihood_bound(
    denoiser: Denoiser, context: Sequence[int], target: Sequence[int], *, samples: int, batch_size: int, seed: int
) -> Estimate:
    """A lower bound on log p(target | context), by LLaDA's estimator (arXiv 2502.09992, Eq. 6).

        E_l E_S [ (L / l) sum_{i in S} log p(x_i | x outside S) ],   l uniform on 1..L, S uniform among the subsets of size l

    The sizes l of the draws are spread evenly over 1..L, from one uniform start, as in the published code.

    Args:
        denoiser: the model.
        context: token ids before the target, maybe none.
        target: the L token ids that are scored, at least one.
        samples: draws, at least 1.
        batch_size: canvases in one forward; changes nothing but time.
        seed: of the draws.
    """
    length, device = len(target), denoiser.device
    generator = torch.Generator().manual_seed(seed)
    start = int(torch.randint(length, (1,), generator=generator))
    size = (start + torch.arange(samples) * length // samples) % length + 1
    place = torch.rand(samples, length, generator=generator).argsort(-1).argsort(-1)
    hidden = place < size.unsqueeze(-1)
    row = torch.tensor([*context, *target], device=device)
    rows = torch.cat([torch.zeros(samples, len(context), dtype=torch.bool), hidden], 1).to(device)
    found: list[Tensor] = []
    for part in torch.split(rows, batch_size):
        tokens = row.expand(len(part), -1)
        logits = denoiser(tokens.masked_fill(part, denoiser.mask_id), rows=part).logits.float()
        log_probs = logits.log_softmax(-1).gather(-1, tokens[part].unsqueeze(-1)).squeeze(-1)
        found.append(torch.zeros(len(part), device=device).index_add(0, part.nonzero()[:, 0], log_probs))
    draws = torch.cat(found).double().cpu() * length / size
    error = float(draws.std() / samples**0.5) if samples > 1 else 0.0
    return Estimate(float(draws.mean()), error)
