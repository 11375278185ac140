"""The rehearsal at a checkpoint's own shape, on the shape of the golden model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from train.real_size import real_size

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(LeafSpec|num_workers|enable_nested_tensor|number of training batches)"
)

GOLDEN = Path(__file__).parents[1] / "golden"


def test_a_random_checkpoint_is_written_loaded_decoded_and_given_a_head(tmp_path, capsys):
    metadata = tmp_path / "shape"
    metadata.mkdir()
    config = json.loads((GOLDEN / "llada" / "config.json").read_text())
    (metadata / "config.json").write_text(
        json.dumps(config | {"vocab_size": 1024, "embedding_size": 1024, "max_sequence_length": 512})
    )
    with safe_open(GOLDEN / "llada" / "model.safetensors", framework="pt") as stored:
        names = sorted(stored.keys())
    shards = {name: f"model-0000{1 + (i % 2)}-of-00002.safetensors" for i, name in enumerate(names)}
    (metadata / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    real_size(
        metadata=metadata, out=tmp_path, work=tmp_path / "work", tokenizer=GOLDEN.parents[1] / "checkpoints/reason-7m",
        gen_length=32, device="cpu",
    )  # fmt: skip
    found = json.loads((tmp_path / "real-size.json").read_text())
    assert found == {**json.loads(capsys.readouterr().out), "environment": found["environment"]}
    assert {(row["policy"], row["cache"]) for row in found["decodes"]} == {
        (policy, cache) for policy in ("threshold", "ete", "learned") for cache in ("none", "prefix", "dual")
    }
    assert all(row["nfe"] >= 1 for row in found["decodes"])
    assert found["host_gib_peak"] >= found["host_gib_before"] > 0
    assert (tmp_path / "work" / "head" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "work" / "checkpoint").exists()


def test_a_folder_without_an_index_or_with_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^metadata must be a folder with config\.json, got"):
        real_size(metadata=tmp_path, out=tmp_path, work=tmp_path, device="cpu")
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(
        ValueError, match=r"^work must hold no folder checkpoint, which is written and removed, got one in"
    ):
        real_size(metadata=GOLDEN / "hub" / "llada", out=tmp_path, work=tmp_path, device="cpu")
