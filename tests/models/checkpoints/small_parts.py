"""A small base and its head in folders, and what the files of a head hold."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from decoding.features import NAMES
from models.heads.cascade import Cascade, CascadeConfig
from models.heads.config import HeadConfig
from models.heads.scoring_head import ScoringHead
from train.base.export import export

TOKENIZER = Path(__file__).parents[3] / "checkpoints" / "reason-7m"


def small(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    rope = {"rope_type": "default", "rope_theta": 1e4}
    more = {"num_key_value_heads": 2, "vocab_size": 768, "max_position_embeddings": 256, "rope_parameters": rope}
    return LlamaForCausalLM(LlamaConfig(**sizes, **more, rms_norm_eps=1e-5, is_causal=False, pad_token_id=None))


def write(model, folder, **more) -> Path:
    export(model, folder, tokenizer=TOKENIZER, mask_id=1, eos_id=0, **more)
    return folder


def head_of(denoiser, seed: int, variant: str = "lora") -> ScoringHead:
    torch.manual_seed(seed)
    bound = denoiser.fingerprint()
    head = ScoringHead(HeadConfig(variant, NAMES, rank=2, width=8, base=bound), denoiser)
    head.cascade = Cascade(CascadeConfig(rank=2, base=bound), denoiser)
    with torch.no_grad():
        for own in head.parameters():
            if own.requires_grad:
                own.normal_(std=0.1)
        for own in head.cascade.parameters():
            if own.requires_grad:
                own.normal_(std=0.1)
    return head


def values(head: ScoringHead) -> dict[str, torch.Tensor]:
    own = {n: t for n, t in head.state_dict().items() if "lora_" in n or not n.startswith(("stream.", "cascade."))}
    return own | {f"cascade.{n}": t for n, t in head.cascade.state_dict().items() if "lora_" in n or "stream" not in n}


def same(one: ScoringHead, other: ScoringHead) -> bool:
    return all(torch.equal(value, values(other)[name]) for name, value in values(one).items())
