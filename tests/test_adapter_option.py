"""A PEFT adapter named on the command line is merged into the model."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from train.commands.compare import check_compare
from train.commands.generate import check_generate, run_generate

MODULE = "model.transformer.blocks.7.ff_out"


@pytest.fixture
def adapter(tmp_path):
    """A LoRA of rank 1 on one matrix of the shipped model, large enough to change its answers."""
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["ff_out"], "bias": "none"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    parts = {"A": torch.randn(1, 768), "B": torch.randn(256, 1)}
    named = {f"base_model.model.{MODULE}.lora_{part}.weight": tensor for part, tensor in parts.items()}
    save_file(named, tmp_path / "adapter_model.safetensors")
    return str(tmp_path)


def test_an_answer_comes_from_the_model_with_its_adapter(adapter):
    plain, adapted = (
        json.loads(
            run_generate(
                check_generate("2,3,4,24", "countdown3", "sequential", {}, adapter=folder), device="cpu", as_json=True
            )
        )
        for folder in (None, adapter)
    )
    assert plain["accepted"]
    assert adapted["text"] != plain["text"]
    assert (plain["settings"]["adapter"], adapted["settings"]["adapter"]) == (None, adapter)


def test_the_shipped_head_is_not_put_on_a_model_with_an_adapter(adapter):
    call = check_generate("2,3,4,24", "countdown3", None, {}, adapter=adapter)
    assert (call.request.policy, call.head) == ("ete", None)
    assert check_compare([], None, "countdown3", num_prompts=1, num_dev=1, adapter=adapter).head is None


def test_a_folder_without_an_adapter_is_refused(tmp_path):
    for call in (
        lambda: check_generate("2,3,4,24", "countdown3", "ete", {}, adapter=str(tmp_path)),
        lambda: check_compare([], None, "countdown3", num_prompts=1, num_dev=1, adapter=str(tmp_path)),
    ):
        with pytest.raises(ValueError, match=r"^adapter must be a folder with adapter_config\.json, got"):
            call()
