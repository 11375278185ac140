"""From what a user passes as prompts to one left-padded batch of token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from models.complaints import shown
from models.denoiser import Denoiser

MOST_COPIES = 1 << 16
BYTES = bytes | bytearray | memoryview  # sequences of whole numbers that are no ids


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts that end at the same column.

    Attributes:
        tokens: ids, any id on padding.
        attention_mask: False on padding; None where there is none.
    """

    tokens: Int[Tensor, "B P"]
    attention_mask: Bool[Tensor, "B P"] | None

    def to(self, device: torch.device) -> Prompts:
        """The same rows on a device."""
        mask = self.attention_mask
        return Prompts(self.tokens.to(device), None if mask is None else mask.to(device))

    def with_canvas(self, gen_length: int) -> Prompts:
        """The same rows with `gen_length` columns more."""
        mask = self.attention_mask
        return Prompts(
            torch.nn.functional.pad(self.tokens, (0, gen_length)),
            None if mask is None else torch.nn.functional.pad(mask, (0, gen_length), value=True),
        )


def read_prompts(
    prompts: Any, attention_mask: Any, denoiser: Denoiser, *, chat: bool | None = None, copies: int = 1
) -> Prompts:
    """Read ids [P] or [B, P], a list of id lists, strings or chats; rows of unequal length are padded on the left.

    They stay where they are: the ids of a tensor and their mask on its device, all else on the CPU, where judging them
    waits for nothing.

    Args:
        prompts: the prompts.
        attention_mask: for ids [P] or [B, P] alone, a tensor, an array or lists: 0 on their padding, which must be on the left.
        denoiser: whose ids these are, and whose `encode` reads strings.
        chat: for strings, as in `encode`: as a user message where True, or where None and the model has a chat template.
        copies: rows of each prompt, one after the other; at least 1.

    Raises:
        ValueError: for an empty prompt, a mask id in a prompt, an id outside the vocabulary, padding on the right, or a
            mask of other values than 0, 1 and bools.
    """
    if not isinstance(copies, int) or isinstance(copies, bool) or copies < 1:
        raise ValueError(f"num_return_sequences must be a whole number of at least 1, got {shown(copies)}")
    if copies > MOST_COPIES:
        raise ValueError(f"num_return_sequences must be at most {MOST_COPIES}, got {shown(copies)}")
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
    _check(batch, denoiser)
    if copies == 1:
        return batch
    mask = batch.attention_mask
    return Prompts(
        batch.tokens.repeat_interleave(copies, 0), None if mask is None else mask.repeat_interleave(copies, 0)
    )


def read_one(prompt: Any, denoiser: Denoiser, *, chat: bool | None = None) -> list[int]:
    """The ids of one prompt: a string, a chat, or ids.

    Raises:
        ValueError: as `read_prompts`.
    """
    rows = _id_lists(prompt.tolist() if hasattr(prompt, "tolist") else prompt, denoiser, chat)
    if len(rows) != 1:
        raise ValueError(f"a prompt must be a string, a chat or a list of ids, got {len(rows)} of them")
    _check(_pad_left(rows), denoiser)
    return rows[0]


def leave_room(prompts: Sequence[str], denoiser: Denoiser, gen_length: int) -> list[bool]:
    """Say of each prompt whether the model has positions enough for it and `gen_length` more."""
    rows = _id_lists(prompts, denoiser, None) if prompts else []
    return [len(row) + gen_length <= denoiser.max_length for row in rows]


def cut_prompt(prompt: Any, denoiser: Any, room: int, *, chat: bool | None = None) -> list[int]:
    """Token ids of a prompt that was too long: its end, or that of a chat's last message inside its template.

    Args:
        prompt: a string or a chat.
        denoiser: whose `encode` and tokenizer read it.
        room: tokens there is room for, at least 1.
        chat: as in `read_prompts`.

    Raises:
        ValueError: if template and earlier messages alone are too long.
    """
    ids: list[int] = denoiser.encode([prompt], chat=chat)[0]
    if isinstance(prompt, str) and not (denoiser.is_chat if chat is None else chat):
        return ids[len(ids) - room :] if len(ids) > room else ids
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    last = denoiser.tokenizer(messages[-1]["content"], add_special_tokens=False)["input_ids"]
    for _ in last:  # decoding and encoding again may change how many tokens there are
        if len(ids) <= room:
            return ids
        last = last[len(ids) - room :]
        if not last:
            raise ValueError(f"messages before the last one must leave room for it in {room} tokens, got more")
        content = denoiser.tokenizer.decode(last)
        ids = denoiser.encode([[*messages[:-1], {**messages[-1], "content": content}]])[0]
    raise ValueError(f"messages must leave room for their template in {room} tokens, got {len(ids)}")


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
    if attention_mask.dtype != torch.bool:
        odd = attention_mask[(attention_mask != 0) & (attention_mask != 1)]
        if odd.numel():
            raise ValueError(f"attention_mask must hold 0 and 1 alone, got {shown(odd[0].item())}")
    mask = attention_mask.bool().reshape(tokens.shape)
    if (mask[:, :-1] & ~mask[:, 1:]).any():
        raise ValueError("attention_mask must pad on the left, got padding after a prompt")
    return Prompts(tokens, None if bool(mask.all()) else mask.to(tokens.device))


def _id_lists(prompts: Any, denoiser: Denoiser, chat: bool | None) -> list[list[int]]:
    if isinstance(prompts, str):
        prompts = [prompts]
    if not isinstance(prompts, Sequence) or isinstance(prompts, BYTES) or not prompts:
        raise ValueError(f"prompts must be ids, a string or a list of either, got {shown(prompts)}")
    prompts = [prompts] if all(isinstance(message, Mapping) for message in prompts) else prompts
    if all(isinstance(prompt, str) or is_chat(prompt) for prompt in prompts):
        _require_letters([text for prompt in prompts for text in _texts(prompt)])
        encode = getattr(denoiser, "encode", None)
        if encode is None:
            raise ValueError(f"prompts must be token ids for a model without a tokenizer, got {shown(str(prompts[0]))}")
        return [list(ids) for ids in encode(prompts, chat=chat)]
    rows = [prompts] if all(isinstance(prompt, Integral) for prompt in prompts) else prompts
    rows = [row.tolist() if hasattr(row, "tolist") else row for row in rows]
    if any(isinstance(row, BYTES) or not isinstance(row, Sequence) for row in rows) or not all(
        isinstance(token, Integral) for row in rows for token in row
    ):
        raise ValueError(f"prompts must be ids, a string or a list of either, got a list with {shown(prompts[0])}")
    return [[int(token) for token in row] for row in rows]


def is_chat(prompt: Any) -> bool:
    """Whether a prompt is a list of chat messages."""
    return isinstance(prompt, Sequence) and bool(prompt) and all(isinstance(message, Mapping) for message in prompt)


def _texts(prompt: Any) -> list[str]:
    return [prompt] if isinstance(prompt, str) else [str(message.get("content", "")) for message in prompt]


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
    tokens = tokens.reshape(len(rows), longest)
    if min(map(len, rows)) == longest:
        return Prompts(tokens, None)
    lengths = torch.tensor([len(row) for row in rows])
    return Prompts(tokens, torch.arange(longest) >= longest - lengths.unsqueeze(-1))


def _check(batch: Prompts, denoiser: Denoiser) -> None:
    tokens, mask = batch.tokens, batch.attention_mask
    if not tokens.numel() or (mask is not None and not mask.any(-1).all()):
        raise ValueError("every prompt must hold at least one token, got an empty one")
    real = True if mask is None else mask
    for name, wrong in (
        ("must not hold the mask token", (tokens == denoiser.mask_id) & real),
        (f"must hold ids from 0 to {denoiser.vocab_size - 1}", ((tokens < 0) | (tokens >= denoiser.vocab_size)) & real),
    ):
        if wrong.any():
            row, column = wrong.nonzero()[0].tolist()
            raise ValueError(f"prompts {name}, got id {int(tokens[row, column])} at column {column} of prompt {row}")
