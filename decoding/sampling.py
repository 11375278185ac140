"""How candidate tokens are drawn: argmax, temperature and nucleus, and more draws of every position."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from decoding.calls.draws import Chances, chances_of

SMALLEST = torch.finfo(torch.float32).tiny  # a top_p below it would be 0, and keep no token
COLD = 1e-30  # a temperature below which logits over it overflow


@dataclass(frozen=True)
class Sampling:
    """How the candidate token of a position is drawn.

    Args:
        temperature: 0 takes the most likely token; above 0 draws from softmax(logits / temperature).
        top_p: keep the smallest set of tokens whose probability reaches this, in (0, 1].
        forbidden: token ids that are never candidates (the mask token; EOS for `logits_eos_inf`).
        unconfident: token ids whose confidence counts as 0 (`confidence_eos_eot_inf`).
        noise: whether each position also gets a uniform draw (`Reading.noise`) for policies with random order.
        draws: tokens that each position also gets from p^power / sum p^power, beside its candidate (`Reading.draws`).
        power: exponent of those draws and of `Draws.log_power`, above 0.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    forbidden: tuple[int, ...] = ()
    unconfident: tuple[int, ...] = ()
    noise: bool = False
    draws: int = 0
    power: float = 1.0

    @property
    def at_random(self) -> bool:
        """Whether anything is drawn."""
        return self.temperature > 0 or self.noise or self.draws > 0

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be at least 0, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], got {self.top_p}")


@dataclass(frozen=True)
class Draws:
    """N tokens drawn independently at every position from p^power / sum_v p(v)^power.

    Attributes:
        tokens: the draws.
        log_probs: their log p.
        chances: a uniform draw in [0, 1) for each of them.
        log_power: log sum_v p(v)^power.
    """

    tokens: Int[Tensor, "... L N"]
    log_probs: Float[Tensor, "... L N"]
    chances: Float[Tensor, "... L N"]
    log_power: Float[Tensor, "... L"]

    @staticmethod
    def empty(shape: tuple[int, ...], count: int, device: torch.device) -> Draws:
        """No position drawn: zeros."""
        zeros = torch.zeros(shape, device=device)
        none = zeros.unsqueeze(-1).expand(*shape, count)
        return Draws(none.long(), none, none, zeros)

    def map(self, function: Callable[[Tensor], Tensor]) -> Draws:
        """The same function on every tensor."""
        return Draws(*(function(getattr(self, f.name)) for f in fields(Draws)))


def draw_more(log_probs: Float[Tensor, "m V"], sampling: Sampling, chances: Chances) -> Draws:
    """Draws from p^power with their log p and uniform companions, and the log of the sum of p^power."""
    tempered = sampling.power * log_probs
    if not len(tempered):
        return Draws.empty((0,), sampling.draws, log_probs.device)
    tokens = chances.more(_drawable(tempered).softmax(-1), sampling.draws)
    return Draws(tokens, log_probs.gather(-1, tokens), chances.companions(tokens), tempered.logsumexp(-1))


def _drawable(z: Float[Tensor, "m V"]) -> Float[Tensor, "m V"]:
    """Rows that have no distribution as uniform ones: nothing drawn from them is used, for the decode ends there."""
    return z.masked_fill(~z.amax(-1, keepdim=True).isfinite(), 0.0)


def draw(z: Float[Tensor, "m V"], sampling: Sampling, generator: torch.Generator | Chances | None) -> Int[Tensor, " m"]:
    """The candidate token of each row: argmax at temperature 0, else a draw from the nucleus of softmax(z / T)."""
    if sampling.temperature == 0:
        return z.argmax(-1)
    if sampling.temperature < COLD:
        z = z - z.amax(-1, keepdim=True)  # so that the division below leaves 0 and no infinity
    probabilities = _drawable(z / max(sampling.temperature, COLD)).softmax(-1)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(-1, descending=True)
        mass_before = ordered.cumsum(-1) - ordered
        beyond = mass_before >= max(sampling.top_p, SMALLEST)
        probabilities = probabilities.scatter(-1, order, ordered.masked_fill(beyond, 0.0))
    return chances_of(generator).candidate(probabilities)
