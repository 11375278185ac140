"""The published LLaDA checkpoint layout: key names and ``config.json``, as pure functions over plain mappings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from models.complaints import shown

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaConfig

TOP_KEYS: Mapping[str, str] = {
    "model.transformer.wte.weight": "model.embed_tokens.weight",
    "model.transformer.ln_f.weight": "model.norm.weight",
    "model.transformer.ff_out.weight": "lm_head.weight",
}
"""LLaDA name -> ``LlamaForCausalLM`` name, outside the blocks."""

BLOCK_KEYS: Mapping[str, str] = {
    "attn_norm.weight": "input_layernorm.weight",
    "q_proj.weight": "self_attn.q_proj.weight",
    "k_proj.weight": "self_attn.k_proj.weight",
    "v_proj.weight": "self_attn.v_proj.weight",
    "attn_out.weight": "self_attn.o_proj.weight",
    "ff_norm.weight": "post_attention_layernorm.weight",
    "ff_proj.weight": "mlp.gate_proj.weight",
    "up_proj.weight": "mlp.up_proj.weight",
    "ff_out.weight": "mlp.down_proj.weight",
}
"""LLaDA name -> ``LlamaForCausalLM`` name, after the block prefix (a block's ``ff_out`` is not the LM head)."""

LLADA_BLOCK = "model.transformer.blocks."
LLAMA_BLOCK = "model.layers."

FIXED_CONFIG: Mapping[str, Any] = {
    "activation_type": "silu",
    "alibi": False,
    "alibi_bias_max": 8.0,
    "architectures": ["LLaDAModelLM"],
    "attention_dropout": 0.0,
    "attention_layer_norm": False,
    "attention_layer_norm_with_affine": True,
    "bias_for_layer_norm": False,
    "block_group_size": 1,
    "block_type": "llama",
    "embedding_dropout": 0.0,
    "flash_attention": False,
    "include_bias": False,
    "include_qkv_bias": False,
    "init_cutoff_factor": None,
    "init_device": "meta",
    "init_fn": "mitchell",
    "init_std": 0.02,
    "input_emb_norm": False,
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "mlp_ratio": 4,
    "model_type": "llada",
    "multi_query_attention": None,
    "precision": "amp_bf16",
    "residual_dropout": 0.0,
    "rope": True,
    "rope_full_precision": True,
    "scale_logits": False,
    "torch_dtype": "bfloat16",
    "use_cache": False,
}
"""The keys of a published ``config.json`` that do not depend on the size of the model."""


def _rename(key: str, top: Mapping[str, str], block: Mapping[str, str], old: str, new: str) -> str:
    if key in top:
        return top[key]
    match = re.fullmatch(re.escape(old) + r"(\d+)\.(.+)", key)
    if match is None or match[2] not in block:
        raise ValueError(f"every key must belong to the checkpoint layout, got {shown(key)}")
    return f"{new}{match[1]}.{block[match[2]]}"


def to_llada(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a ``LlamaForCausalLM`` to the published LLaDA names.

    Args:
        state_dict: the model's state dict.

    Returns:
        The same tensors under LLaDA names.

    Raises:
        ValueError: if a key has no LLaDA name.
    """
    top = {llama: llada for llada, llama in TOP_KEYS.items()}
    block = {llama: llada for llada, llama in BLOCK_KEYS.items()}
    return {_rename(key, top, block, LLAMA_BLOCK, LLADA_BLOCK): value for key, value in state_dict.items()}


def to_llama(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights with LLaDA names to those of ``LlamaForCausalLM``; the inverse of :func:`to_llada`.

    Args:
        state_dict: tensors of a LLaDA checkpoint.

    Returns:
        The same tensors under Llama names.

    Raises:
        ValueError: if a key is no LLaDA name.
    """
    return {_rename(key, TOP_KEYS, BLOCK_KEYS, LLADA_BLOCK, LLAMA_BLOCK): value for key, value in state_dict.items()}


def llada_config(
    config: LlamaConfig, *, mask_token_id: int, eos_token_id: int, pad_token_id: int | None = None
) -> dict[str, Any]:
    """Describe a native Llama model by the keys of a published LLaDA ``config.json``.

    Args:
        config: configuration of the native model; bias-free, untied or tied.
        mask_token_id: id of the mask token.
        eos_token_id: id that ends and fills a response.
        pad_token_id: id that pads a prompt; the EOS id when not given, as published.

    Returns:
        A mapping ready for ``config.json``.

    Raises:
        ValueError: if the model has biases, which the layout cannot hold.
    """
    if config.attention_bias or config.mlp_bias:
        raise ValueError("attention_bias and mlp_bias must be False, got True")
    rope: Mapping[str, Any] = config.rope_parameters or {}
    return {
        **FIXED_CONFIG,
        "d_model": config.hidden_size,
        "embedding_size": config.vocab_size,
        "eos_token_id": eos_token_id,
        "mask_token_id": mask_token_id,
        "max_sequence_length": config.max_position_embeddings,
        "mlp_hidden_size": config.intermediate_size,
        "n_heads": config.num_attention_heads,
        "n_kv_heads": config.num_key_value_heads,
        "n_layers": config.num_hidden_layers,
        "pad_token_id": eos_token_id if pad_token_id is None else pad_token_id,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": float(rope["rope_theta"]),
        "transformers_version": "4.46.2",
        "vocab_size": config.vocab_size,
        "weight_tying": bool(config.tie_word_embeddings),
    }
