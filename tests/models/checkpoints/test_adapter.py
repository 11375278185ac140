"""A LoRA adapter folder becomes W + (alpha / r) B A, under native names and those of the authors' code."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

import models
from models.checkpoints.families import CheckpointError

REMOTE = ("q_proj", "attn_out", "ff_proj", "ff_out")  # block 1 of LLaDA's own code; the LM head is an ff_out too
NATIVE = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")
STORED = {
    "llada-remote": ("llada", [f"model.transformer.blocks.1.{name}" for name in REMOTE]),
    "llada-native": ("llada", [f"model.layers.1.{name}" for name in NATIVE]),
    "dream": ("dream", [f"model.layers.1.{name}" for name in NATIVE]),
}


def write(folder, sizes, **settings):
    """An adapter of rank 2 (3 on the first module) on modules of the given names and (out, in) sizes."""
    torch.manual_seed(0)
    tensors = {}
    for number, (module, (out, inward)) in enumerate(sizes.items()):
        rank = 2 if number else 3
        tensors[f"base_model.model.{module}.lora_A.weight"] = torch.randn(rank, inward)
        tensors[f"base_model.model.{module}.lora_B.weight"] = torch.randn(out, rank)
    leaves = sorted({name.rsplit(".")[-1] for name in sizes})
    plain = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "target_modules": leaves, "bias": "none"}
    plain["rank_pattern"] = {next(iter(sizes)).rsplit(".")[-1]: 3}
    (folder / "adapter_config.json").write_text(json.dumps(plain | settings))
    save_file(tensors, folder / "adapter_model.safetensors")
    return tensors


@pytest.mark.parametrize("case", STORED)
def test_merged_weights(goldens, tmp_path, case):
    family, stored = STORED[case]
    base = goldens[family]
    before = dict(base.denoiser.model.named_parameters())
    native = [f"model.layers.1.{name}" for name in NATIVE]
    sizes = {name: tuple(before[to + ".weight"].shape) for name, to in zip(stored, native, strict=True)}
    tensors = write(tmp_path, sizes)
    merged = models.load(base.folder, device="cpu", adapter=tmp_path)
    after = dict(merged.model.named_parameters())
    assert after.keys() == before.keys()
    for name, to in zip(stored, native, strict=True):
        down, up = (tensors[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
        expected = before[to + ".weight"] + 8 / len(down) * up @ down
        torch.testing.assert_close(after[to + ".weight"].data, expected, atol=1e-4, rtol=1e-5)
    untouched = before.keys() - {name + ".weight" for name in native}
    assert all(torch.equal(after[name], before[name]) for name in untouched)
    assert merged.fingerprint() != base.denoiser.fingerprint()


@pytest.mark.parametrize(
    ("module", "settings", "message"),
    [
        ("model.layers.7.self_attn.q_proj", {}, "must be one of the base, got 'model.layers.7"),
        (
            "model.transformer.blocks.0.att_proj",
            {},
            "must be one of the base, got 'model.transformer.blocks.0.att_proj'",
        ),
        (
            "model.layers.0.self_attn.q_proj",
            {"lora_alpha": 10**400},
            "lora_alpha of the adapter must be a finite number, got 1000",
        ),
        (
            "model.layers.0.self_attn.q_proj",
            {"rank_pattern": {"(": 2}},
            "rank_pattern of the adapter must hold regular expr",
        ),
        (
            "model.layers.0.self_attn.q_proj",
            {"target_modules": ["v_proj"]},
            "target_modules of the adapter .* got model.* left out",
        ),
        (
            "model.layers.0.self_attn.q_proj",
            {"exclude_modules": ["q_proj"]},
            "target_modules of the adapter .* left out",
        ),
        ("model.layers.0.self_attn.q_proj", {"layers_to_transform": [1]}, "target_modules of the adapter .* left out"),
        ("model.layers.0.self_attn.q_proj", {"target_modules": "("}, "must name modules as PEFT does, got"),
        ("model.layers.0.self_attn.q_proj", {"peft_type": "IA3"}, "peft_type of the adapter must be LORA, got 'IA3'"),
        ("model.layers.0.self_attn.q_proj", {"modules_to_save": ["lm_head"]}, "modules_to_save of the adapter"),
    ],
)
def test_what_does_not_fit_is_refused(goldens, tmp_path, module, settings, message):
    write(tmp_path, {module: (64, 64)}, **settings)
    with pytest.raises(CheckpointError, match=message):
        models.load(goldens["llada"].folder, device="cpu", adapter=tmp_path)


def test_a_folder_without_weights_is_refused(goldens, tmp_path):
    write(tmp_path, {"model.layers.0.self_attn.q_proj": (64, 64)})
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"must hold adapter_model.safetensors"):
        models.load(goldens["llada"].folder, device="cpu", adapter=tmp_path)


def test_what_peft_saves_itself_loads(goldens, tmp_path):
    """An adapter fitted by PEFT on the native model gives the same logits merged as it gives in PEFT."""
    from peft import LoraConfig, get_peft_model

    golden = goldens["dream"]
    torch.manual_seed(1)
    base = models.load(golden.folder, device="cpu")
    config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT reads an attribute that transformers renames
        adapted = get_peft_model(base.model, config)
    tokens = golden.tensors["input_ids"]
    fitted = base.logits(tokens)
    adapted.save_pretrained(tmp_path)
    assert len(load_file(tmp_path / "adapter_model.safetensors")) == 8
    merged = models.load(golden.folder, device="cpu", adapter=tmp_path)
    torch.testing.assert_close(merged.logits(tokens), fitted, atol=1e-4, rtol=1e-5)
    assert (fitted - golden.denoiser.logits(tokens)).abs().max() > 0.1


def test_half_an_adapter_is_refused(goldens, tmp_path):
    tensors = write(tmp_path, {"model.layers.0.self_attn.q_proj": (64, 64)})
    save_file({name: t for name, t in tensors.items() if "lora_A" in name}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"must hold lora_A and lora_B of every module"):
        models.load(goldens["llada"].folder, device="cpu", adapter=tmp_path)


def test_an_adapter_of_another_width_is_refused(goldens, tmp_path):
    write(tmp_path, {"model.layers.0.self_attn.q_proj": (64, 32)})
    with pytest.raises(CheckpointError, match=r"must fit the base"):
        models.load(goldens["llada"].folder, device="cpu", adapter=tmp_path)


LINEAR = ["q_proj", "v_proj", "o_proj", "down_proj"]
COMPUTED = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "dora and rslora": {"use_dora": True, "use_rslora": True, "rank_pattern": {"down_proj": 2}},
    "ranks by module": {"rank_pattern": {"layers.1.self_attn.q_proj": 2, "down_proj": 6}},
    "alphas by module": {"alpha_pattern": {"o_proj": 32, r"model.layers.0.mlp.down_proj": 1}},
    "some layers": {"layers_to_transform": [1], "layers_pattern": "layers"},
    "a pattern of modules": {"target_modules": r".*\.(q_proj|up_proj)", "exclude_modules": None},
    "all but some": {"exclude_modules": ["v_proj"]},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "gaussian": {"init_lora_weights": "gaussian"},
    "fan in": {"fan_in_fan_out": True},
}


def by_peft(golden, folder, **settings):
    """What PEFT computes with an adapter that it fitted, saved and loaded again; and the logits of the base."""
    from peft import LoraConfig, PeftModel, get_peft_model

    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = models.load(golden.folder, device="cpu")
        base_logits = fitted.logits(golden.tensors["input_ids"])
        config = LoraConfig(**{"r": 4, "lora_alpha": 12, "target_modules": LINEAR, **settings})
        adapted = get_peft_model(fitted.model, config)
        with torch.no_grad():
            for name, own in adapted.named_parameters():
                if "lora_B" in name:
                    own.normal_(std=0.05)
                if "magnitude" in name:
                    own.mul_(1.3)
        adapted.save_pretrained(folder)
        again = models.load(golden.folder, device="cpu")
        PeftModel.from_pretrained(again.model, folder)
        return again.logits(golden.tensors["input_ids"]), base_logits


@pytest.mark.parametrize("case", COMPUTED)
def test_every_setting_that_is_computed_is_computed_as_peft_does(golden, tmp_path, case):
    theirs, base = by_peft(golden, tmp_path, **COMPUTED[case])
    ours = models.load(golden.folder, device="cpu", adapter=tmp_path).logits(golden.tensors["input_ids"])
    spread = base.std()
    assert (theirs - base).abs().max() > 0.05 * spread
    torch.testing.assert_close(ours / spread, theirs / spread, atol=1e-4, rtol=1e-4)


STARTS = ["pissa", "pissa_niter_4", "olora", "OLoRA", "corda", "loftq", "lora_ga", "mica", "new", 2, ["pissa"]]


@pytest.mark.parametrize("start", STARTS, ids=str)
def test_a_start_that_changes_the_base_is_refused_with_peft_s_own_conversion(goldens, tmp_path, start):
    write(tmp_path, {"model.layers.0.self_attn.q_proj": (64, 64)}, init_lora_weights=start)
    with pytest.raises(
        CheckpointError, match=r"init_lora_weights of the adapter must .*path_initial_model_for_weight_conv"
    ):
        models.load(goldens["llada"].folder, device="cpu", adapter=tmp_path)


def test_a_pissa_adapter_that_peft_converted_loads(goldens, tmp_path):
    from peft import LoraConfig, get_peft_model

    golden = goldens["llada"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = models.load(golden.folder, device="cpu")
        config = LoraConfig(r=4, target_modules=LINEAR, init_lora_weights="pissa")
        adapted = get_peft_model(fitted.model, config)
        adapted.peft_config["default"].init_lora_weights = True
        adapted.save_pretrained(tmp_path / "start")
        adapted.peft_config["default"].init_lora_weights = "pissa"
        with torch.no_grad():
            for name, own in adapted.named_parameters():
                if "lora_" in name:
                    own.add_(torch.randn_like(own) * 0.02)
        theirs = fitted.logits(golden.tensors["input_ids"])
        adapted.save_pretrained(tmp_path / "made", path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    ours = models.load(golden.folder, device="cpu", adapter=tmp_path / "made").logits(golden.tensors["input_ids"])
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)


MEANS_MORE = {
    "bias": "lora_only",
    "lora_bias": True,
    "modules_to_save": ["lm_head"],
    "trainable_token_indices": [1, 2],
    "layer_replication": [[0, 2], [1, 2]],
    "alora_invocation_tokens": [5],
    "use_qalora": True,
    "use_bdlora": {"a": 1},
    "arrow_config": {"top_k": 2},
    "kasa_config": {"a": 1},
    "velora_config": {"a": 1},
    "monteclora_config": {"a": 1},
    "target_parameters": ["mlp.weight"],
    "megatron_config": {"a": 1},
    "ensure_weight_tying": True,
    "a_setting_of_tomorrow": "x",
    "a_number_of_tomorrow": 0,
}


@pytest.mark.parametrize("key", MEANS_MORE)
def test_what_means_more_than_w_plus_s_b_a_is_refused_by_name(goldens, tmp_path, key):
    write(tmp_path, {"model.layers.0.self_attn.q_proj": (64, 64)}, **{key: MEANS_MORE[key]})
    with pytest.raises(CheckpointError, match=rf"{key} of the adapter must be .* got .*merge_and_unload"):
        models.load(goldens["llada"].folder, device="cpu", adapter=tmp_path)


@pytest.mark.parametrize("nothing", [None, False, [], {}, ""], ids=repr)
def test_a_setting_that_says_nothing_passes(goldens, tmp_path, nothing):
    more = dict.fromkeys([*(key for key in MEANS_MORE if key != "bias"), "another"], nothing)
    write(tmp_path, {"model.layers.0.self_attn.q_proj": (64, 64)}, **more)
    models.load(goldens["llada"].folder, device="cpu", adapter=tmp_path)


NUMBERS = [
    ("r", "2"), ("r", 0), ("r", 10**6), ("r", True), ("r", 2.0), ("lora_alpha", "8"), ("lora_alpha", float("nan")),
    ("rank_pattern", [1]), ("rank_pattern", {"q_proj": "3"}), ("alpha_pattern", {"q_proj": None}), ("use_dora", "yes"),
    ("use_rslora", 2),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), NUMBERS, ids=str)
def test_numbers_that_are_none_are_refused(goldens, tmp_path, key, value):
    write(tmp_path, {"model.layers.0.self_attn.q_proj": (64, 64)}, **{key: value})
    with pytest.raises(CheckpointError, match=r"must be|got the number NaN"):
        models.load(goldens["llada"].folder, device="cpu", adapter=tmp_path)


def test_magnitudes_and_the_switch_must_agree(goldens, tmp_path):
    write(tmp_path, {"model.layers.0.self_attn.q_proj": (64, 64)}, use_dora=True)
    with pytest.raises(CheckpointError, match=r"must hold a magnitude of every module with use_dora, got none for"):
        models.load(goldens["llada"].folder, device="cpu", adapter=tmp_path)
    tensors = write(tmp_path, {"model.layers.0.self_attn.q_proj": (64, 64)})
    sized = {"base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector": torch.ones(64)}
    save_file(tensors | sized, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"must hold no magnitudes without use_dora, got one for"):
        models.load(goldens["llada"].folder, device="cpu", adapter=tmp_path)


def test_an_adapter_with_a_value_that_is_none_is_refused(goldens, tmp_path):
    tensors = write(tmp_path, {"model.layers.0.self_attn.q_proj": (64, 64)})
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"lora_A.weight of .* must hold finite numbers, got nan in it"):
        models.load(goldens["llada"].folder, device="cpu", adapter=tmp_path)
