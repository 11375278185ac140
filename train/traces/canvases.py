"""Prompts of a task as canvases with their reference answers, and canvases as text."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress, takewhile

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from decoding.prompts import leave_room, read_prompts
from models.denoiser import Denoiser
from train.tasks.task import Example, Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Canvases:
    """Prompts with room for the answer, left padded, and the reference canvas where there is one.

    Attributes:
        tokens: prompts and canvases.
        attention_mask: False on padding.
        reference: token ids of the reference answer, EOS filled; -1 outside the canvas and where there is no reference.
    """

    tokens: Int[Tensor, "B L"]
    attention_mask: Bool[Tensor, "B L"]
    reference: Int[Tensor, "B L"]


def encode(denoiser: Denoiser, task: Task, examples: Sequence[Example]) -> Canvases:
    """Turn examples into canvases; prompt and response are encoded apart."""
    prompts = (
        read_prompts([e.prompt for e in examples], None, denoiser).to(denoiser.device).with_canvas(task.gen_length)
    )
    mask = prompts.attention_mask
    eos = denoiser.eos_id if denoiser.eos_id is not None else 0
    reference = torch.full_like(prompts.tokens, -1)
    for row, example in enumerate(examples):
        answer = denoiser.tokenizer(example.response, add_special_tokens=False).input_ids
        if example.response and len(answer) <= task.gen_length:
            filled = answer + [eos] * (task.gen_length - len(answer))
            reference[row, -task.gen_length :] = torch.tensor(filled)
    return Canvases(
        prompts.tokens, torch.ones_like(prompts.tokens, dtype=torch.bool) if mask is None else mask, reference
    )


def without_long(denoiser: Denoiser, task: Task, examples: Sequence[Example]) -> list[Example]:
    """The examples whose prompts leave room for the canvas; says how many do not."""
    fits = leave_room([example.prompt for example in examples], denoiser, task.gen_length)
    if not all(fits):
        log.warning("%s: %d prompts too long for the model are left out", task.name, fits.count(False))
    return list(compress(examples, fits))


def decode_text(denoiser: Denoiser, canvas: Tensor) -> str:
    """The text of one canvas up to the first id that ends an answer."""
    ids = canvas.tolist()
    return str(denoiser.tokenizer.decode(list(takewhile(lambda token: token not in denoiser.end_ids, ids))))
