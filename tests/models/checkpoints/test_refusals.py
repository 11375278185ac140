"""Checkpoints that the native layers would compute wrongly, and damaged ones, are refused in one clear sentence."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import models
from models.checkpoints.families import CheckpointError, family_of


@pytest.fixture
def folder(golden, tmp_path):
    """A copy of the checkpoint to damage."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((golden.folder / name).read_bytes())
    return tmp_path


def change(folder, **settings):
    config = json.loads((folder / "config.json").read_text()) | settings
    (folder / "config.json").write_text(json.dumps(config))


def refusal(folder) -> str:
    with pytest.raises(CheckpointError) as caught:
        models.load(folder, device="cpu")
    message = str(caught.value)
    assert isinstance(caught.value, ValueError)
    return message


LLADA_SETTINGS = {
    "block_type": "sequential",
    "activation_type": "swiglu",
    "layer_norm_type": "default",
    "alibi": True,
    "rope": False,
    "scale_logits": True,
    "input_emb_norm": True,
    "attention_layer_norm": True,
    "include_bias": True,
    "include_qkv_bias": True,
    "bias_for_layer_norm": True,
    "multi_query_attention": True,
    "block_group_size": 4,
    "weight_tying": "false",
    "rotary_pct": 0.25,
    "block_size": 4,
    "use_rope": False,
    "logit_scale": 0.5,
    "quantization_config": {"quant_method": "fp8"},
}
DREAM_SETTINGS = {
    "hidden_act": "gelu",
    "use_mrope": True,
    "use_sliding_window": True,
    "final_logit_softcapping": 30.0,
    "no_rope_layers": [1, 0],
    "rope_scaling": {"rope_type": "yarn", "factor": 4.0},
}


@pytest.mark.parametrize(
    ("family", "key"), [("llada", k) for k in LLADA_SETTINGS] + [("dream", k) for k in DREAM_SETTINGS]
)
def test_a_setting_outside_the_family_is_named(goldens, tmp_path, family, key):
    value = (LLADA_SETTINGS | DREAM_SETTINGS)[key]
    (tmp_path / "config.json").write_bytes((goldens[family].folder / "config.json").read_bytes())
    change(tmp_path, **{key: value})
    message = refusal(tmp_path)
    assert message.startswith(f"{key} of a {'LLaDA' if family == 'llada' else 'Dream'} model must be")
    assert message.endswith(f"got {value!r}")


def test_every_value_that_a_setting_may_have_is_told():
    with pytest.raises(CheckpointError, match=r"^weight_tying of a LLaDA model must be False or True, got 'false'$"):
        family_of({"model_type": "llada", "weight_tying": "false"})


@pytest.mark.parametrize(
    ("key", "value"),
    [("layer_types", ["sliding_attention", "full_attention"]), ("layer_types", "all"), ("head_dim", 7)],
)
def test_layers_of_another_shape_are_named(goldens, tmp_path, key, value):
    (tmp_path / "config.json").write_bytes((goldens["dream"].folder / "config.json").read_bytes())
    change(tmp_path, **{key: value})
    assert refusal(tmp_path).startswith(f"{key} of config.json must be")


def test_a_tensor_that_two_files_hold_is_named(folder):
    shutil.copy(folder / "model.safetensors", folder / "model-00001-of-00002.safetensors")
    assert "must be stored once, got it again in" in refusal(folder)


@pytest.mark.parametrize(
    ("model_type", "found"),
    [
        ("llada2_moe", "LLaDA2"),
        ("llada_moe", "LLaDA-MoE"),
        ("lladamoe", "LLaDA-MoE"),
        ("sdar", "SDAR"),
        ("sdar_moe", "SDAR"),
        ("Fast_dLLM_Qwen", "Fast-dLLM v2"),
        ("gpt2", "'gpt2'"),
        (None, "'none'"),
    ],
)
def test_another_model_is_named(folder, model_type, found):
    change(folder, model_type=model_type)
    message = refusal(folder)
    assert found in message
    assert "LLaDA (model_type llada" in message


def test_a_mixture_of_experts_under_a_known_type_is_named(folder):
    change(folder, num_experts=64)
    assert "mixture of experts with {'num_experts': 64}" in refusal(folder)


def test_a_missing_size_is_named(folder):
    config = json.loads((folder / "config.json").read_text())
    config.pop("rope_theta")
    (folder / "config.json").write_text(json.dumps(config))
    assert "must have the key 'rope_theta'" in refusal(folder)


def test_no_config(folder):
    (folder / "config.json").unlink()
    assert "must hold config.json" in refusal(folder)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_config_that_is_no_object(folder, text):
    (folder / "config.json").write_text(text)
    assert "config.json must" in refusal(folder)


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    assert refusal(folder).endswith("as model*.safetensors, got none")


def test_pickled_weights_alone(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "got only pytorch_model.bin, which would run code" in refusal(folder)


@pytest.mark.parametrize("kept", [0, 100, 5000, -1])
def test_truncated_weights(folder, kept):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    assert "must be a whole safetensors file" in refusal(folder)


def test_a_shard_that_is_missing(folder):
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "got no model-1.safetensors and 1 more" in refusal(folder)


def test_missing_and_unexpected_weights(folder, golden):
    weights = load_file(folder / "model.safetensors")
    extra = {"llada": "model.transformer.blocks.9.ff_out.weight", "dream": "model.layers.9.mlp.down_proj.weight"}
    weights[extra[golden.name]] = weights.pop(
        next(name for name in weights if "1." in name and "q_proj.weight" in name)
    )
    save_file(weights, folder / "model.safetensors")
    message = refusal(folder)
    assert "1 missing (model.layers.1.self_attn.q_proj.weight)" in message
    assert "1 unexpected (model.layers.9.mlp.down_proj.weight)" in message


def test_names_of_another_layout(goldens, tmp_path):
    """LLaDA's config over Dream's weights."""
    (tmp_path / "config.json").write_bytes((goldens["llada"].folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((goldens["dream"].folder / "model.safetensors").read_bytes())
    assert "must have the names of a LLaDA checkpoint" in refusal(tmp_path)


def test_a_wrong_shape(folder, golden):
    change(folder, **({"mlp_hidden_size": 200} if golden.name == "llada" else {"intermediate_size": 200}))
    assert "by the config, got" in refusal(folder)


def test_a_mask_id_outside_the_vocabulary(folder):
    change(folder, mask_token_id=None)  # the published id then counts, and this vocabulary has 256 tokens
    assert "the mask id must lie in the vocabulary of 256" in refusal(folder)


@pytest.mark.parametrize("name", ["no/such/folder", "./nowhere", "config.json", "/nowhere"])
def test_what_is_neither_folder_nor_hub_id(name):
    assert "must be a checkpoint folder or `owner/name`" in refusal(name)


def test_a_hub_id_while_offline(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert "must be a local folder or on the hub, got 'owner/name'" in refusal("owner/name")


def test_a_hub_id_in_the_cache(monkeypatch, golden):
    """The snapshot's folder loads, and only weights, settings and tokenizer files are asked for."""
    request = {}
    snapshot = lambda name, allow_patterns: request.update({name: allow_patterns}) or str(golden.folder)  # noqa: E731
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    denoiser = models.load("owner/name", device="cpu")
    assert denoiser.fingerprint() == golden.denoiser.fingerprint()
    assert set(request["owner/name"]) == {"*.json", "*.safetensors", "*.txt", "*.jinja"}


def test_weights_that_no_config_describes_stay_unread(folder):
    """Nothing is built before the names are known to fit."""
    save_file({"foreign": torch.zeros(1)}, folder / "model.safetensors")
    assert "foreign" in refusal(folder)
