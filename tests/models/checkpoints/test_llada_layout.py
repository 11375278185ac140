"""The LLaDA layout: names round-trip, nothing is dropped, the published config keys are all there."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from models.checkpoints.llada_layout import llada_config, to_llada, to_llama

HUB_KEYS = """activation_type alibi alibi_bias_max architectures attention_dropout attention_layer_norm
attention_layer_norm_with_affine bias_for_layer_norm block_group_size block_type d_model embedding_dropout
embedding_size eos_token_id flash_attention include_bias include_qkv_bias init_cutoff_factor init_device init_fn
init_std input_emb_norm layer_norm_type layer_norm_with_affine mask_token_id max_sequence_length mlp_hidden_size
mlp_ratio model_type multi_query_attention n_heads n_kv_heads n_layers pad_token_id precision residual_dropout
rms_norm_eps rope rope_full_precision rope_theta scale_logits torch_dtype transformers_version use_cache vocab_size
weight_tying""".split()


def tiny_config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=32,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )


def test_names_round_trip_and_keep_every_tensor() -> None:
    state = LlamaForCausalLM(tiny_config()).state_dict()
    renamed = to_llada(state)
    assert len(renamed) == len(state) == 3 + 2 * 9
    back = to_llama(renamed)
    assert back.keys() == state.keys()
    assert all(back[key] is state[key] for key in state)


def test_the_output_layer_and_a_block_ff_out_keep_apart() -> None:
    state = LlamaForCausalLM(tiny_config()).state_dict()
    renamed = to_llada(state)
    assert renamed["model.transformer.ff_out.weight"] is state["lm_head.weight"]
    assert renamed["model.transformer.blocks.1.ff_out.weight"] is state["model.layers.1.mlp.down_proj.weight"]
    assert renamed["model.transformer.blocks.1.ff_proj.weight"] is state["model.layers.1.mlp.gate_proj.weight"]


@pytest.mark.parametrize("key", ["model.layers.0.self_attn.q_proj.bias", "model.layers.x.mlp.up_proj.weight", "head"])
def test_a_foreign_key_is_refused_by_name(key: str) -> None:
    with pytest.raises(ValueError, match=key):
        to_llada({key: torch.zeros(1)})


def test_the_config_has_the_published_keys_and_our_values() -> None:
    config = llada_config(tiny_config(), mask_token_id=3, eos_token_id=1)
    assert sorted(config) == sorted(HUB_KEYS)
    expected = {"d_model": 16, "n_layers": 2, "n_heads": 2, "n_kv_heads": 2, "mlp_hidden_size": 24, "rope_theta": 1e4}
    assert expected.items() <= config.items()
    assert (config["eos_token_id"], config["pad_token_id"], config["mask_token_id"]) == (1, 1, 3)
    assert (config["vocab_size"], config["embedding_size"], config["max_sequence_length"]) == (64, 64, 32)
    assert config["weight_tying"] is False


def test_biases_are_refused() -> None:
    config = tiny_config()
    config.attention_bias = True
    with pytest.raises(ValueError, match="attention_bias"):
        llada_config(config, mask_token_id=3, eos_token_id=1)
