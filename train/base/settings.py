"""What a base model is and how it is fitted: its shape, learning rates, loss and schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass

from transformers import LlamaConfig

from models.checkpoints.config_numbers import MOST_LAYERS
from train.base.diffusion_loss import Weighting
from train.base.schedule import learning_rate_factor

MOST = 1 << 20  # of a width


@dataclass(frozen=True)
class ModelShape:
    """Size of the native Llama model.

    Args:
        layers: number of blocks.
        width: hidden size.
        heads: attention heads; divides the width.
        mlp_width: hidden size of the MLP.
        max_positions: longest sequence.
        rope_theta: base of the rotary embedding.
    """

    layers: int = 8
    width: int = 256
    heads: int = 4
    mlp_width: int = 768
    max_positions: int = 2048
    rope_theta: float = 10000.0

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads", "mlp_width", "max_positions"):
            most = MOST_LAYERS if name == "layers" else MOST
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must lie in [1, {most}], got {getattr(self, name)}")
        if self.width % (2 * self.heads):
            raise ValueError(f"heads must divide width ({self.width}) into even parts, got {self.heads}")
        if not 0 < self.rope_theta < math.inf:
            raise ValueError(f"rope_theta must be a finite number above 0, got {self.rope_theta}")

    def config(self, *, vocabulary: int, eos_id: int) -> LlamaConfig:
        """Build the bidirectional configuration; the vocabulary is rounded up to a multiple of 64."""
        return LlamaConfig(  # type: ignore[call-arg]  # two settings pass through its keywords
            vocab_size=-(-vocabulary // 64) * 64,
            hidden_size=self.width,
            intermediate_size=self.mlp_width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=self.max_positions,
            rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": self.rope_theta},
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=eos_id,
            pad_token_id=None,
            use_cache=False,
            is_causal=False,
            attn_implementation="sdpa",
        )


@dataclass(frozen=True)
class Fit:
    """How the weights are fitted.

    Args:
        tokens_per_step: tokens of a batch, prompts and padding included.
        muon_lr: learning rate of the matrices inside the blocks.
        adam_lr: learning rate of embeddings, head and norms.
        momentum: of Muon.
        weight_decay: of Muon, at least 0.
        warmup: fraction of the run with rising learning rate.
        decay: last fraction of the run, with the learning rate falling to zero.
        clip: bound on the gradient norm.
        weighting: of the loss, see `train.base.diffusion_loss`.
        certainty: weight of the entropy of tokens that are right already, at least 0, see there.
        mask_schedule: above 1 prefers high mask rates, see `train.base.diffusion_loss.mask_rates`.
        ema_decay: of the averaged weights that are saved; 0 saves the raw weights.
        seed: of batches and initial weights.
    """

    tokens_per_step: int = 131072
    muon_lr: float = 0.02
    adam_lr: float = 0.003
    momentum: float = 0.95
    weight_decay: float = 0.1
    warmup: float = 0.01
    decay: float = 0.3
    clip: float = 1.0
    weighting: Weighting = "inverse"
    certainty: float = 0.0
    mask_schedule: float = 1.0
    ema_decay: float = 0.999
    seed: int = 0

    def __post_init__(self) -> None:
        factors = ("momentum", "weight_decay", "clip", "certainty", "mask_schedule")
        for name in ("muon_lr", "adam_lr", *factors):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a finite number of at least 0, got {getattr(self, name)}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1), got {self.ema_decay}")
        if self.tokens_per_step < 1:
            raise ValueError(f"tokens_per_step must be at least 1, got {self.tokens_per_step}")
        learning_rate_factor(0.0, warmup=self.warmup, decay=self.decay)
