"""A denoiser made wrong on purpose, by a fixed error that differs with the context."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from models.denoiser import Denoiser
from models.toys.toy import WholeCanvas

RATE = 40.0  # so fast a sine that contexts one token apart get errors that have nothing in common


class Perturbed(WholeCanvas):
    """Another denoiser with noise on its logits: z + strength * g(context, position, token), E g = 0, E g^2 = 1.

    g is a fixed function of everything revealed, sqrt 2 sin(w . onehot(tokens) + phase), so that the model is one model, wrong in
    the same way at every call, and its conditionals are consistent across orders no more.

    Args:
        inner: the denoiser.
        length: canvas positions that g reads, counted from the right end.
        strength: standard deviation of the error of a logit, at least 0.
        seed: which error.
    """

    def __init__(self, inner: Denoiser, *, length: int, strength: float, seed: int = 0) -> None:
        super().__init__()
        if strength < 0:
            raise ValueError(f"strength must be at least 0, got {strength}")
        self.inner, self.length, self.strength = inner, length, strength
        self.mask_id, self.eos_id, self.vocab_size = inner.mask_id, inner.eos_id, inner.vocab_size
        self.end_of_turn_id, self.also_ends = inner.end_of_turn_id, inner.also_ends
        self.max_length, self.tokenizer = inner.max_length, inner.tokenizer
        generator = torch.Generator().manual_seed(seed)
        shape = (length * self.vocab_size, length * self.vocab_size)
        self.weight = nn.Buffer(torch.randn(shape, generator=generator) * RATE / length**0.5)
        self.phase = nn.Buffer(torch.rand(shape[1], generator=generator) * 2 * torch.pi)

    @property
    def device(self) -> torch.device:
        """Where token ids must live."""
        return self.phase.device

    def error(self, tokens: Int[Tensor, "N L"]) -> Float[Tensor, "N L V"]:
        """g, 0 outside the canvas."""
        canvas = nn.functional.one_hot(tokens[:, -self.length :], self.vocab_size).float().flatten(1)
        wave = 2**0.5 * (canvas @ self.weight + self.phase).sin()
        noise = torch.unflatten(wave, 1, (self.length, self.vocab_size))
        return nn.functional.pad(noise, (0, 0, tokens.shape[1] - self.length, 0))

    def logits_at(self, tokens: Tensor, rows: Tensor, attention_mask: Tensor | None) -> Tensor:
        """See `WholeCanvas.logits_at`."""
        logits: Tensor = self.inner(tokens, attention_mask=attention_mask, rows=rows).logits
        return logits + self.strength * self.error(tokens)[rows].to(logits.dtype)
