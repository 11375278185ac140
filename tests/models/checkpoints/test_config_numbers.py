"""RoPE in both spellings, and sizes that are none: read, or refused before anything is built."""

from __future__ import annotations

import json
import time

import pytest

import models
from models.checkpoints.families import CheckpointError, family_of, native_config

THETA = {"llada": 500000.0, "dream": 1000000.0}
LAYERS = {"llada": "n_layers", "dream": "num_hidden_layers"}
HEADS = {"llada": "n_heads", "dream": "num_attention_heads"}


def native(golden, **settings):
    """The native configuration of a golden config with other settings; None takes a key away."""
    config = json.loads((golden.folder / "config.json").read_text()) | settings
    config = {key: value for key, value in config.items() if value is not None}
    return native_config(family_of(config), config)


PLAIN = {
    "transformers 5": {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 12345.0}},
    "both the same": {"rope_theta": 12345, "rope_parameters": {"rope_type": "default", "rope_theta": 12345.0}},
    "theta outside": {"rope_theta": 12345, "rope_parameters": {"rope_type": "default"}},
    "theta in the other": {"rope_theta": None, "rope_scaling": {"type": "default", "rope_theta": 12345}},
    "null": {"rope_theta": 12345, "rope_scaling": None, "rope_parameters": {}},
    "empty": {"rope_theta": 12345, "rope_scaling": "", "rope_parameters": []},
    "factor 1": {"rope_theta": 12345, "rope_scaling": {"type": "linear", "factor": 1.0}},
    "both kinds": {"rope_theta": 12345, "rope_scaling": {"type": "default", "rope_type": "default", "factor": None}},
    "by layer type": {"rope_theta": None, "rope_parameters": {"full_attention": {"rope_theta": 12345}}},
    "unused": {"rope_theta": 12345, "rope_parameters": {"original_max_position_embeddings": 4096}},
    "whole": {"rope_theta": 12345, "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 1.0}},
}


@pytest.mark.parametrize("case", PLAIN)
def test_plain_rope_is_read_in_every_spelling(golden, case):
    assert native(golden, **PLAIN[case]).rope_parameters == {"rope_type": "default", "rope_theta": 12345.0}


SCALED = [
    {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e6},
    {"rope_type": "yarn", "factor": 4.0},
    {"rope_type": "llama3", "factor": 1.0},
    {"rope_type": "longrope"},
    {"rope_type": "default", "factor": 2.0},
    {"type": "dynamic", "factor": 2.0},
    {"type": "default", "rope_type": "linear", "factor": 1.0},
    {"partial_rotary_factor": 0.5},
    {"mrope_section": [16, 24, 24]},
    {"sliding_attention": {"rope_theta": 1e4}, "full_attention": {"rope_theta": 1e6}},
    {"rope_type": "default", "factor": 0},
    [1, 2],
    "linear",
    4.0,
    0,
]


@pytest.mark.parametrize("spelling", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("part", SCALED, ids=str)
def test_scaled_rope_is_refused_in_either_spelling(golden, spelling, part):
    with pytest.raises(CheckpointError, match=rf"{spelling} of a .* model must be plain RoPE"):
        native(golden, **{spelling: part})


@pytest.mark.parametrize("spelling", ["rope_scaling", "rope_parameters"])
def test_thetas_that_contradict_one_another_are_refused(golden, spelling):
    with pytest.raises(CheckpointError, match=r"rope_theta must be the same wherever it stands, got 7 in rope_"):
        native(golden, **{spelling: {"rope_type": "default", "rope_theta": 7}})


@pytest.mark.parametrize("theta", [0, -1.0, float("nan"), float("inf"), "10000", True, [1e4]])
def test_a_theta_that_is_none_is_refused(golden, theta):
    for settings in ({"rope_theta": theta}, {"rope_theta": None, "rope_parameters": {"rope_theta": theta}}):
        with pytest.raises(CheckpointError, match=r"rope_theta of config.json must be a finite number above 0, got"):
            native(golden, **settings)


@pytest.mark.parametrize("wrong", ["4", 0, -1, 2.0, True, [2], {}, 10**7, 10**30])
def test_sizes_that_are_none_are_refused(golden, wrong):
    key = LAYERS[golden.name]
    with pytest.raises(CheckpointError, match=rf"{key} of config.json must be a whole number from 1 to 4096, got"):
        native(golden, **{key: wrong})


@pytest.mark.parametrize("heads", [3, 64])
def test_heads_that_do_not_divide_the_width_are_refused(golden, heads):
    with pytest.raises(CheckpointError, match=rf"{HEADS[golden.name]} of config.json must divide"):
        native(golden, **{HEADS[golden.name]: heads})


def test_more_layers_than_are_stored_are_refused_before_they_are_built(golden, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((golden.folder / name).read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {LAYERS[golden.name]: 4000}))
    began = time.monotonic()
    with pytest.raises(CheckpointError, match=r"blocks of the weights must be as many as the config's 4000, got 2"):
        models.load(tmp_path, device="cpu")
    assert time.monotonic() - began < 5
