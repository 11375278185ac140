"""The two families of models that load here, LLaDA and Dream: what each `config.json` must say, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from models.checkpoints.llada_layout import to_llama

SUPPORTED = "LLaDA (model_type llada: dense, block_type llama) and Dream (model_type Dream)"


class CheckpointError(ValueError):
    """A checkpoint, adapter or loaded model that cannot be used; the message says what was found and what is needed."""


@dataclass(frozen=True)
class Family:
    """What sets one family apart.

    Attributes:
        name: as its authors write it.
        shifted: whether the hidden state at i - 1 predicts position i.
        mask_id, end_of_turn_id: published ids, used where neither config nor tokenizer names one.
        end_of_turn: the token that closes a chat message.
        rules: config key -> values with which the native layers compute the same; an absent key has the first of them.
        native_config: config.json -> configuration of the native model.
        native_names: stored names -> native names, values kept.
    """

    name: str
    shifted: bool
    mask_id: int
    end_of_turn_id: int
    end_of_turn: str
    rules: Mapping[str, tuple[Any, ...]]
    native_config: Callable[[Mapping[str, Any]], Any]
    native_names: Callable[[Mapping[str, Any]], dict[str, Any]]


def _llama_config(config: Mapping[str, Any]) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=config.get("embedding_size") or config["vocab_size"],
        hidden_size=config["d_model"],
        intermediate_size=config.get("mlp_hidden_size") or config["mlp_ratio"] * config["d_model"],
        num_hidden_layers=config["n_layers"],
        num_attention_heads=config["n_heads"],
        num_key_value_heads=config.get("n_kv_heads") or config["n_heads"],
        hidden_act="silu",
        max_position_embeddings=config["max_sequence_length"],
        rms_norm_eps=config["rms_norm_eps"],
        rope_parameters={"rope_type": "default", "rope_theta": float(config["rope_theta"])},
        tie_word_embeddings=bool(config.get("weight_tying", False)),
        attention_bias=False,
        mlp_bias=False,
        bos_token_id=None,
        eos_token_id=config.get("eos_token_id"),
        pad_token_id=None,  # with an id the embedding would get a padding_idx
    )


def _qwen2_config(config: Mapping[str, Any]) -> Any:
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        num_hidden_layers=config["num_hidden_layers"],
        num_attention_heads=config["num_attention_heads"],
        num_key_value_heads=config["num_key_value_heads"],
        hidden_act="silu",
        max_position_embeddings=config["max_position_embeddings"],
        rms_norm_eps=config["rms_norm_eps"],
        rope_parameters={"rope_type": "default", "rope_theta": float(config["rope_theta"])},
        tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
        use_sliding_window=False,
        bos_token_id=None,
        eos_token_id=config.get("eos_token_id"),
        pad_token_id=None,
    )


LLADA = Family(
    name="LLaDA",
    shifted=False,
    mask_id=126336,
    end_of_turn_id=126348,
    end_of_turn="<|eot_id|>",
    rules={
        "block_type": ("llama",),
        "activation_type": ("silu",),
        "layer_norm_type": ("rms",),
        "layer_norm_with_affine": (True,),
        "bias_for_layer_norm": (False, None),
        "rope": (True,),
        "rope_scaling": (None,),
        "alibi": (False,),
        "scale_logits": (False,),
        "input_emb_norm": (False,),
        "attention_layer_norm": (False,),
        "include_bias": (False,),
        "include_qkv_bias": (False, None),
        "multi_query_attention": (None, False),
        "block_group_size": (1,),
        "clip_qkv": (None,),
    },
    native_config=_llama_config,
    native_names=to_llama,
)

DREAM = Family(
    name="Dream",
    shifted=True,
    mask_id=151666,
    end_of_turn_id=151645,
    end_of_turn="<|im_end|>",
    rules={
        "hidden_act": ("silu",),
        "rope_scaling": (None,),
        "use_sliding_window": (False,),
        "use_mrope": (False,),
    },
    native_config=_qwen2_config,
    native_names=dict,
)

_FAMILIES = {"llada": LLADA, "dream": DREAM}
_KNOWN_ELSEWHERE = {
    "llada_moe": "LLaDA-MoE, a mixture of experts",
    "lladamoe": "LLaDA-MoE, a mixture of experts",
    "llada2": "LLaDA2, a block-causal mixture of experts",
    "sdar": "SDAR, which is block-causal",
    "fast_dllm": "Fast-dLLM v2, which is block-causal",
}


def family_of(config: Mapping[str, Any]) -> Family:
    """The family of a `config.json`, refused by name where the native layers would compute something else.

    Raises:
        CheckpointError: if the model type or a setting is outside the two families.
    """
    model_type = str(config.get("model_type") or "none")
    plain = model_type.lower().replace("-", "_")
    for prefix, found in _KNOWN_ELSEWHERE.items():
        if plain.startswith(prefix):
            raise CheckpointError(f"model_type must be one of {SUPPORTED}, got {model_type!r} ({found})")
    if plain not in _FAMILIES:
        raise CheckpointError(f"model_type must be one of {SUPPORTED}, got {model_type!r}")
    experts = {k: v for k, v in config.items() if "expert" in k and v}
    if experts:
        raise CheckpointError(f"the model must be dense ({SUPPORTED}), got a mixture of experts with {experts}")
    family = _FAMILIES[plain]
    for key, allowed in family.rules.items():
        if config.get(key, allowed[0]) not in allowed:
            raise CheckpointError(f"{key} of a {family.name} model must be {allowed[0]!r}, got {config[key]!r}")
    return family


def native_config(family: Family, config: Mapping[str, Any]) -> Any:
    """The native configuration, bidirectional; a key that is missing becomes a clear sentence."""
    try:
        native = family.native_config(config)
    except KeyError as error:
        raise CheckpointError(f"config.json of a {family.name} model must have the key {error.args[0]!r}") from error
    native.is_causal = False
    return native
