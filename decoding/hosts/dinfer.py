"""A policy in dInfer's engine (inclusionAI/dInfer, Apache-2.0) for full-attention LLaDA: pass `PolicyDecoder` as its decoder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from decoding.hosts.commits import commits, require_hostable
from decoding.policy import Policy
from decoding.state import DecodeState, start
from models.complaints import shown


class PolicyDecoder:
    """What dInfer calls a `ParallelDecoder`: it is asked after every forward of a block, and writes tokens into the host's array.

    The host runs the base, keeps the cache and ends a text after its EOS. Blocks of a prompt that do not divide the canvas, as the
    last one may be in dInfer, are refused.

    Args:
        policy: decides; of one canvas and without a head that reads hidden states.
        mask_id, eos_id: special ids of the base.
        seed: of a policy that draws.
    """

    def __init__(self, policy: Policy, *, mask_id: int, eos_id: int, seed: int = 0) -> None:
        require_hostable(policy)
        if policy.needs.taps:
            raise ValueError(f"policy must read no hidden states in dInfer, which gives none, got {shown(policy)}")
        self.policy, self.mask_id, self.eos_id, self.seed = policy, mask_id, eos_id, seed
        self._state: DecodeState | None = None
        self._generator: torch.Generator | None = None

    def block_init(self, block_x: Tensor, block_id: int) -> None:
        """Called before the first forward of a block; a new canvas begins with block 0."""
        if block_id == 0:
            self._state = None

    def decode(
        self, logits: Tensor, block_start: int, block_end: int, x: Any, iter_threshold: float | None = None
    ) -> None:
        """Write the policy's commits of one round into `x`.

        Args:
            logits: of the block, [B, block, V].
            block_start, block_end: its columns.
            x: the host's `TokenArray`: prompt, data, gen_length.
            iter_threshold: of a host that changes its threshold from round to round, which the policy does not take.

        Raises:
            ValueError: for a threshold of the host's, or a block that does not divide the canvas.
        """
        if iter_threshold is not None:
            raise ValueError(f"iter_threshold must be left to the policy's own dial, got {iter_threshold}")
        state = self._begin(x, block_end - block_start) if self._state is None else self._state
        tokens = torch.where(x.data == self.mask_id, state.tokens, x.data)
        done = commits(
            self.policy,
            logits,
            None,
            x.data == self.mask_id,
            replace(state, tokens=tokens),
            first=block_start,
            generator=self._generator,
        )
        x.data[done.where] = done.tokens[done.where]
        self._state = done.state

    def _begin(self, x: Any, block_length: int) -> DecodeState:
        """The state of a new canvas."""
        gen_length = x.data.shape[1] - x.prompt.shape[1]
        if gen_length % block_length:
            raise ValueError(f"block_length must divide gen_length {gen_length}, got {block_length}")
        self.policy.check_blocks(gen_length // block_length)
        self._generator = torch.Generator(x.data.device).manual_seed(self.seed)
        return start(
            x.data,
            gen_length=gen_length,
            block_length=block_length,
            mask_id=self.mask_id,
            eos_id=None,
            initial_blocks=self.policy.initial_blocks,
        )
