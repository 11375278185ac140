"""Where chance comes from: a generator, whose draws come in order, or counters, whose draws are each row's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

CANDIDATE, MORE, CHANCE, NOISE = range(4)  # what a position draws in a round
STEP, FIRST, SECOND = (c - 2**64 for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
BITS = 24  # of a uniform draw, all that float32 holds


class Chances(ABC):
    """The draws of one forward."""

    @abstractmethod
    def at(self, index: Any) -> Chances:
        """Those of some positions."""

    @abstractmethod
    def noise(self, shape: tuple[int, ...], device: torch.device) -> Float[Tensor, "*shape"]:
        """A uniform draw in [0, 1) for every position."""

    @abstractmethod
    def candidate(self, probabilities: Float[Tensor, "m V"]) -> Int[Tensor, " m"]:
        """A token of each position."""

    @abstractmethod
    def more(self, probabilities: Float[Tensor, "m V"], count: int) -> Int[Tensor, "m N"]:
        """N further tokens of each position."""

    @abstractmethod
    def companions(self, tokens: Int[Tensor, "m N"]) -> Float[Tensor, "m N"]:
        """A uniform draw in [0, 1) for each of those tokens."""


@final
@dataclass(frozen=True)
class InOrder(Chances):
    """Draws of a generator, in the order in which they are asked for: a row's depend on the rows beside it.

    Args:
        generator: None takes torch's own.
    """

    generator: torch.Generator | None = None

    def at(self, index: Any) -> Chances:
        """The same: nothing is set aside for a position."""
        return self

    def noise(self, shape: tuple[int, ...], device: torch.device) -> Float[Tensor, "*shape"]:
        """The next ones."""
        return torch.rand(shape, generator=self.generator, device=device)

    def candidate(self, probabilities: Float[Tensor, "m V"]) -> Int[Tensor, " m"]:
        """The next ones."""
        return torch.multinomial(probabilities, 1, generator=self.generator).squeeze(-1)

    def more(self, probabilities: Float[Tensor, "m V"], count: int) -> Int[Tensor, "m N"]:
        """The next ones."""
        return torch.multinomial(probabilities, count, replacement=True, generator=self.generator)

    def companions(self, tokens: Int[Tensor, "m N"]) -> Float[Tensor, "m N"]:
        """The next ones."""
        return torch.rand(tokens.shape, generator=self.generator, device=tokens.device)


@final
@dataclass(frozen=True)
class Counted(Chances):
    """Draws that follow from a key of their position alone.

    Args:
        keys: of the positions.
    """

    keys: Int[Tensor, "*shape"]

    def at(self, index: Any) -> Chances:
        """Those of some positions."""
        return Counted(self.keys[index])

    def noise(self, shape: tuple[int, ...], device: torch.device) -> Float[Tensor, "*shape"]:
        """Of every key one."""
        return uniform(self.keys, NOISE, 1).squeeze(-1)

    def candidate(self, probabilities: Float[Tensor, "m V"]) -> Int[Tensor, " m"]:
        """The token in whose share of [0, 1) the key's draw falls."""
        return inverse(probabilities, uniform(self.keys, CANDIDATE, 1)).squeeze(-1)

    def more(self, probabilities: Float[Tensor, "m V"], count: int) -> Int[Tensor, "m N"]:
        """As `candidate`, from draws of their own."""
        return inverse(probabilities, uniform(self.keys, MORE, count))

    def companions(self, tokens: Int[Tensor, "m N"]) -> Float[Tensor, "m N"]:
        """Of every key N."""
        return uniform(self.keys, CHANCE, tokens.shape[-1])


@final
@dataclass(frozen=True)
class Counter:
    """Draws that follow from seed, prompt, round, canvas and position, so that no row's depend on its neighbours.

    Args:
        seed: any whole number.
    """

    seed: int

    def of(
        self, prompt: Int[Tensor, " N"], round_: Int[Tensor, " N"], canvas: Int[Tensor, " N"], length: int
    ) -> Counted:
        """The draws of N canvases.

        Args:
            prompt: its number.
            round_: forwards that the canvas has used.
            canvas: which of the prompt's canvases it is.
            length: positions of each, which count from the right, so that padding on the left changes nothing.
        """
        seed = torch.full_like(prompt, self.seed % 2**63)
        key = mix(mix(mix(seed, prompt), round_), canvas)
        return Counted(mix(key.unsqueeze(-1), torch.arange(length - 1, -1, -1, device=prompt.device)))


def chances_of(source: torch.Generator | Chances | None) -> Chances:
    """Draws as they are, or those of a generator."""
    return source if isinstance(source, Chances) else InOrder(source)


def mix(key: Int[Tensor, "..."], value: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """A key that stands for a key and a number: SplitMix64's output function, DOI 10.1145/2714064.2660195."""
    z = key + (value + 1) * STEP
    z = (z ^ _right(z, 30)) * FIRST
    z = (z ^ _right(z, 27)) * SECOND
    return z ^ _right(z, 31)


def uniform(keys: Int[Tensor, "*shape"], kind: int, count: int) -> Float[Tensor, "*shape N"]:
    """N draws in [0, 1) for each key.

    Args:
        keys: one for each position.
        kind: what is drawn.
        count: N.
    """
    kinds = mix(keys, torch.full_like(keys, kind)).unsqueeze(-1)
    return _right(mix(kinds, torch.arange(count, device=keys.device)), 64 - BITS).float() / (1 << BITS)


def inverse(probabilities: Float[Tensor, "m V"], draws: Float[Tensor, "m N"]) -> Int[Tensor, "m N"]:
    """The tokens in whose share of [0, 1) the draws fall; a token of probability 0 has none."""
    reach = probabilities.double().cumsum(-1)
    return torch.searchsorted(reach, draws.double() * reach[:, -1:], right=True).clamp(max=reach.shape[-1] - 1)


def _right(value: Tensor, bits: int) -> Tensor:
    """A shift that brings in zeros."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)
