"""The two families of models that load here, LLaDA and Dream: what each `config.json` must say, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from models.checkpoints.config_numbers import (
    MOST_LAYERS,
    divides,
    positive,
    rope_parameters,
    whole,
)
from models.checkpoints.config_numbers import (
    CheckpointError as CheckpointError,
)
from models.checkpoints.llada_layout import to_llama
from models.complaints import shown

SUPPORTED = "LLaDA (model_type llada: dense, block_type llama) and Dream (model_type Dream)"


@dataclass(frozen=True)
class Family:
    """What sets one family apart.

    Attributes:
        name: as its authors write it.
        native: name of the transformers class whose layers it runs on.
        shifted: whether the hidden state at i - 1 predicts position i.
        mask_id, end_of_turn_id: published ids, used where neither config nor tokenizer names one.
        end_of_turn: the token that closes a chat message.
        rules: config key -> values with which the native layers compute the same; an absent key has the first of them.
        native_config: config.json -> configuration of the native model.
        native_names: stored names -> native names, values kept.
    """

    name: str
    native: str
    shifted: bool
    mask_id: int
    end_of_turn_id: int
    end_of_turn: str
    rules: Mapping[str, tuple[Any, ...]]
    native_config: Callable[[Mapping[str, Any]], Any]
    native_names: Callable[[Mapping[str, Any]], dict[str, Any]]


def _ids(named: Any, size: int) -> Any:
    """Token ids as they are; None for what is no id of a vocabulary of this size, which the reader of special ids names."""
    every = named if isinstance(named, list) else [named]
    return named if all(type(one) is int and 0 <= one < size for one in every) else None


def _llama_config(config: Mapping[str, Any]) -> Any:
    from transformers import LlamaConfig

    width, heads = whole(config, "d_model"), whole(config, "n_heads")
    divides(config, "n_heads", "d_model", times=2)
    if config.get("n_kv_heads"):
        whole(config, "n_kv_heads")
        divides(config, "n_kv_heads", "n_heads")
    inner = whole(config, "mlp_hidden_size") if config.get("mlp_hidden_size") else whole(config, "mlp_ratio") * width
    return LlamaConfig(
        vocab_size=whole(config, "embedding_size" if config.get("embedding_size") else "vocab_size"),
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=whole(config, "n_layers", most=MOST_LAYERS),
        num_attention_heads=heads,
        num_key_value_heads=config.get("n_kv_heads") or heads,
        hidden_act="silu",
        max_position_embeddings=whole(config, "max_sequence_length"),
        rms_norm_eps=positive(config, "rms_norm_eps", most=1.0),
        rope_parameters=rope_parameters(config, "LLaDA"),
        tie_word_embeddings=bool(config.get("weight_tying", False)),
        attention_bias=False,
        mlp_bias=False,
        bos_token_id=None,
        eos_token_id=_ids(config.get("eos_token_id"), config.get("embedding_size") or config["vocab_size"]),
        pad_token_id=None,  # with an id the embedding would get a padding_idx
    )


def _qwen2_config(config: Mapping[str, Any]) -> Any:
    from transformers import Qwen2Config

    width, heads = whole(config, "hidden_size"), whole(config, "num_attention_heads")
    shared = whole(config, "num_key_value_heads")
    divides(config, "num_attention_heads", "hidden_size", times=2)
    divides(config, "num_key_value_heads", "num_attention_heads")
    return Qwen2Config(
        vocab_size=whole(config, "vocab_size"),
        hidden_size=width,
        intermediate_size=whole(config, "intermediate_size"),
        num_hidden_layers=whole(config, "num_hidden_layers", most=MOST_LAYERS),
        num_attention_heads=heads,
        num_key_value_heads=shared,
        hidden_act="silu",
        max_position_embeddings=whole(config, "max_position_embeddings"),
        rms_norm_eps=positive(config, "rms_norm_eps", most=1.0),
        rope_parameters=rope_parameters(config, "Dream"),
        tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
        use_sliding_window=False,
        bos_token_id=None,
        eos_token_id=_ids(config.get("eos_token_id"), config["vocab_size"]),
        pad_token_id=None,
    )


_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "use_sliding_window": (False, None),
    "partial_rotary_factor": (1, None),
    "rotary_pct": (1, None),
    "rotary_percent": (1, None),
    "rope_ratio": (1, None),
    "rope_interleaved": (False, None),
    "rope_local_base_freq": (None,),
    "use_rope": (True, None),
    "no_rope_layers": (None, []),
    "use_mrope": (False, None),
    "logit_scale": (1, None),
    "logits_scaling": (1, None),
    "final_logit_softcapping": (None,),
    "attn_logit_softcapping": (None,),
    "attention_multiplier": (None,),
    "embedding_multiplier": (1, None),
    "residual_multiplier": (1, None),
    "query_pre_attn_scalar": (None,),
    "qk_norm": (False, None),
    "use_qk_norm": (False, None),
    "mlp_bias": (False, None),
    "quantization_config": (None, {}),
    "quantization": (None, {}),
    "block_size": (None,),  # attention that is causal over blocks
}
"""What configs of other models say of layers that are not those of Llama and Qwen2."""

LLADA = Family(
    name="LLaDA",
    native="LlamaForCausalLM",
    shifted=False,
    mask_id=126336,
    end_of_turn_id=126348,
    end_of_turn="<|eot_id|>",
    rules={
        **_PLAIN,
        "weight_tying": (False, True, None),
        "block_type": ("llama",),
        "activation_type": ("silu",),
        "layer_norm_type": ("rms",),
        "layer_norm_with_affine": (True,),
        "bias_for_layer_norm": (False, None),
        "rope": (True,),
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
    native="Qwen2ForCausalLM",
    shifted=True,
    mask_id=151666,
    end_of_turn_id=151645,
    end_of_turn="<|im_end|>",
    rules={
        **_PLAIN,
        "tie_word_embeddings": (False, True, None),
        "hidden_act": ("silu",),
        "attention_bias": (True, None),
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
            raise CheckpointError(f"model_type must be one of {SUPPORTED}, got {shown(model_type)} ({found})")
    if plain not in _FAMILIES:
        raise CheckpointError(f"model_type must be one of {SUPPORTED}, got {shown(model_type)}")
    experts = {k: v for k, v in config.items() if "expert" in k and v}
    if experts:
        raise CheckpointError(f"the model must be dense ({SUPPORTED}), got a mixture of experts with {experts}")
    kinds = config.get("layer_types") or ["full_attention"]
    if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
        raise CheckpointError(f"layer_types of config.json must be full_attention alone, got {shown(kinds)}")
    family = _FAMILIES[plain]
    for key, allowed in family.rules.items():
        if config.get(key, allowed[0]) not in allowed:
            rule = " or ".join(shown(one) for one in allowed if one is not None or one is allowed[0])
            raise CheckpointError(f"{key} of a {family.name} model must be {rule}, got {shown(config[key])}")
    return family


def native_config(family: Family, config: Mapping[str, Any]) -> Any:
    """The native configuration, bidirectional; a key that is missing becomes a clear sentence."""
    try:
        native = family.native_config(config)
    except KeyError as error:
        raise CheckpointError(
            f"config.json of a {family.name} model must have the key {shown(error.args[0])}"
        ) from error
    width = native.hidden_size // native.num_attention_heads
    if config.get("head_dim") not in (None, width):
        raise CheckpointError(
            f"head_dim of config.json must be {width}, width by heads, got {shown(config['head_dim'])}"
        )
    native.is_causal = False
    return native
