"""From what a user passes as prompts to one left-padded batch of token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from models.denoiser import Denoiser


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts that end at the same column.

    Attributes:
        tokens: ids, any id on padding.
        attention_mask: False on padding; None where there is none.
    """

    tokens: Int[Tensor, "B P"]
    attention_mask: Bool[Tensor, "B P"] | None

    def with_canvas(self, gen_length: int) -> Prompts:
        """The same rows with `gen_length` columns more."""
        mask = self.attention_mask
        return Prompts(
            torch.nn.functional.pad(self.tokens, (0, gen_length)),
            None if mask is None else torch.nn.functional.pad(mask, (0, gen_length), value=True),
        )


def read_prompts(prompts: Any, attention_mask: Any, denoiser: Denoiser, *, chat: bool | None = None) -> Prompts:
    """Read ids [P] or [B, P], a list of id lists, a string or a list of strings; rows of unequal length are padded on the left.

    Args:
        prompts: the prompts.
        attention_mask: for ids [P] or [B, P] alone, a tensor, an array or lists: 0 on their padding, which must be on the left.
        denoiser: whose ids these are, and whose `encode` reads strings.
        chat: for strings, as in `encode`: as a user message where True, or where None and the model has a chat template.

    Raises:
        ValueError: for an empty prompt, a mask id in a prompt, an id outside the vocabulary, or padding on the right.
    """
    if hasattr(prompts, "__array__") and not isinstance(prompts, Tensor):
        prompts = _as_tensor("prompts", prompts)
    if isinstance(prompts, Tensor):
        mask = attention_mask
        batch = _read_tensor(
            prompts, mask if mask is None or isinstance(mask, Tensor) else _as_tensor("attention_mask", mask)
        )
    elif attention_mask is not None:
        raise ValueError(f"attention_mask must come with a tensor of token ids, got {type(prompts).__name__}")
    else:
        batch = _pad_left(_id_lists(prompts, denoiser, chat))
    batch = Prompts(
        batch.tokens.to(denoiser.device),
        None if batch.attention_mask is None else batch.attention_mask.to(denoiser.device),
    )
    _check(batch, denoiser)
    return batch


def leave_room(prompts: Sequence[str], denoiser: Denoiser, gen_length: int) -> list[bool]:
    """Say of each prompt whether the model has positions enough for it and `gen_length` more."""
    rows = _id_lists(prompts, denoiser, None) if prompts else []
    return [len(row) + gen_length <= denoiser.max_length for row in rows]


def _as_tensor(name: str, values: Any) -> Tensor:
    """An array of numpy or nested lists as a tensor."""
    try:
        return torch.as_tensor(values)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{name} must be whole numbers [P] or [B, P], got {type(values).__name__} ({error})") from None


def _read_tensor(tokens: Tensor, attention_mask: Tensor | None) -> Prompts:
    if tokens.ndim not in (1, 2) or tokens.is_floating_point() or tokens.dtype == torch.bool:
        raise ValueError(f"prompts must be whole-number ids [P] or [B, P], got {tokens.dtype} {tuple(tokens.shape)}")
    if attention_mask is not None and attention_mask.shape != tokens.shape:
        raise ValueError(f"attention_mask must have the shape of the prompts, got {tuple(attention_mask.shape)}")
    tokens = tokens.long().unsqueeze(0) if tokens.ndim == 1 else tokens.long()
    if attention_mask is None:
        return Prompts(tokens, None)
    mask = attention_mask.bool().reshape(tokens.shape)
    if (mask[:, :-1] & ~mask[:, 1:]).any():
        raise ValueError("attention_mask must pad on the left, got padding after a prompt")
    return Prompts(tokens, None if bool(mask.all()) else mask)


def _id_lists(prompts: Any, denoiser: Denoiser, chat: bool | None) -> list[list[int]]:
    if isinstance(prompts, str):
        prompts = [prompts]
    if not isinstance(prompts, Sequence) or not prompts:
        raise ValueError(f"prompts must be ids, a string or a list of either, got {prompts!r}")
    if all(isinstance(prompt, str) for prompt in prompts):
        _require_letters(prompts)
        encode = getattr(denoiser, "encode", None)
        if encode is None:
            raise ValueError(f"prompts must be token ids for a model without a tokenizer, got {prompts[0][:60]!r}")
        return [list(ids) for ids in encode(prompts, chat=chat)]
    rows = [prompts] if all(isinstance(prompt, Integral) for prompt in prompts) else prompts
    rows = [row.tolist() if hasattr(row, "tolist") else row for row in rows]
    if not all(isinstance(row, Sequence) and all(isinstance(token, Integral) for token in row) for row in rows):
        raise ValueError(f"prompts must be ids, a string or a list of either, got a list with {prompts[0]!r}")
    return [[int(token) for token in row] for row in rows]


def _require_letters(prompts: Sequence[str]) -> None:
    """Refuse half of a letter, a lone surrogate, which no tokenizer reads."""
    for number, prompt in enumerate(prompts):
        half = next((letter for letter in prompt if "\ud800" <= letter <= "\udfff"), None)
        if half is not None:
            raise ValueError(f"prompt {number} must be whole letters, got {half!a} in it")


def _pad_left(rows: list[list[int]]) -> Prompts:
    longest = max(map(len, rows))
    if any(not -(2**63) <= token < 2**63 for row in rows for token in row):
        raise ValueError("prompts must hold ids of at most 63 bits, got a larger number")
    tokens = torch.tensor([[0] * (longest - len(row)) + row for row in rows], dtype=torch.long)
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(longest) >= longest - lengths.unsqueeze(-1)
    return Prompts(tokens.reshape(len(rows), longest), None if bool(mask.all()) else mask)


def _check(batch: Prompts, denoiser: Denoiser) -> None:
    tokens, mask = batch.tokens, batch.attention_mask
    real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
    if not real.any(-1).all() or not len(tokens):
        raise ValueError("every prompt must hold at least one token, got an empty one")
    for name, wrong in (
        ("must not hold the mask token", real & (tokens == denoiser.mask_id)),
        (f"must hold ids from 0 to {denoiser.vocab_size - 1}", real & ((tokens < 0) | (tokens >= denoiser.vocab_size))),
    ):
        if wrong.any():
            row, column = wrong.nonzero()[0].tolist()
            raise ValueError(f"prompts {name}, got id {int(tokens[row, column])} at column {column} of prompt {row}")
