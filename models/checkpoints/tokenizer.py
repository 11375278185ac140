"""Tokenizer files of a checkpoint folder, and prompts as token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.checkpoints.families import CheckpointError
from models.checkpoints.files import require_regular
from models.complaints import shown

Prompt = str | Sequence[Mapping[str, str]]
"""A text, or a chat: messages with `role` and `content`."""


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder without remote code, or None where it has no tokenizer files.

    LLaDA has tokenizer.json. Dream's own class is slow and remote code; the native Qwen2 tokenizer reads its vocab.json,
    merges.txt and tokenizer_config.json to the same ids.
    """
    from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json"):
        require_regular(folder / name)
    try:
        if (folder / "tokenizer.json").is_file():
            return _tried(PreTrainedTokenizerFast.from_pretrained(folder))
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            return _tried(Qwen2Tokenizer.from_pretrained(folder))
    except Exception as error:  # the tokenizers library raises bare Exception on a damaged file
        raise CheckpointError(f"the tokenizer files of {folder} must be readable, got {error}") from error
    return None


def _tried(tokenizer: Any) -> Any:
    """The tokenizer, once it has read a text: settings of wrong types break it only then."""
    tokenizer("0", add_special_tokens=False)
    return tokenizer


def encode(tokenizer: Any, prompts: Sequence[Prompt], *, chat: bool) -> list[list[int]]:
    """Prompts as token ids: chats, and texts as one user message, with the assistant's turn open; or plain texts."""
    texts = [prompt if isinstance(prompt, str) and not chat else _as_chat(tokenizer, prompt) for prompt in prompts]
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


def _as_chat(tokenizer: Any, prompt: Prompt) -> str:
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    wrong = [m for m in messages if not all(isinstance(m.get(key), str) for key in ("role", "content"))]
    if wrong:
        raise ValueError(f"messages of a chat must have a role and a content, both text, got {shown(wrong[0])}")
    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template is a program: it raises what it likes
        why = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"the chat template of the tokenizer must render the messages, got {why}") from error
    return text


def check_prompts(prompts: Sequence[Sequence[int]], *, mask_id: int, vocab_size: int) -> None:
    """Refuse prompts that are empty, hold the mask token, or hold ids outside the vocabulary.

    Raises:
        ValueError: naming the prompt (0-based).
    """
    for number, ids in enumerate(prompts):
        if len(ids) == 0:
            raise ValueError(f"prompt {number} must hold at least one token, got none")
        if mask_id in ids:
            raise ValueError(
                f"prompt {number} must not hold the mask token (id {mask_id}), got it at {ids.index(mask_id)}"
            )
        strange = [i for i in ids if not 0 <= i < vocab_size]
        if strange:
            raise ValueError(f"token ids of prompt {number} must lie in [0, {vocab_size}), got {strange[0]}")
