"""The first state of a decode."""

from __future__ import annotations

import torch

from decoding.state import DecodeState, start


def beginning(denoiser, gen_length, block_length, batch=1, prompt=1) -> DecodeState:
    tokens = torch.zeros(batch, prompt + gen_length, dtype=torch.long)
    ids = {"mask_id": denoiser.mask_id, "eos_id": denoiser.eos_id}
    return start(tokens, gen_length=gen_length, block_length=block_length, **ids)
