"""A checkpoint folder, sharded or not, becomes a denoiser with exactly its weights; published ones fit by their indexes."""

from __future__ import annotations

import json
import subprocess
import sys
from inspect import unwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import models
from models.checkpoints import files as checkpoint
from models.checkpoints.families import family_of
from models.checkpoints.loading import empty_model, native_names

SIZES = {"llada": (291, 8_015_581_184), "dream": (339, 7_615_616_512)}


def copy_folder(source: Path, target: Path) -> Path:
    target.mkdir(exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        (target / name).write_bytes((source / name).read_bytes())
    return target


def shard(source: Path, target: Path, shards: int) -> Path:
    """The same checkpoint in the published sharded layout."""
    copy_folder(source, target)
    weights = load_file(target / "model.safetensors")
    (target / "model.safetensors").unlink()
    names = sorted(weights)
    weight_map = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(names)}
    for file in set(weight_map.values()):
        save_file({n: weights[n] for n in names if weight_map[n] == file}, target / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (target / "model.safetensors.index.json").write_text(json.dumps(index))
    return target


def test_shards_load_as_one_file(golden, tmp_path):
    denoiser = models.load(shard(golden.folder, tmp_path / "sharded", 3), device="cpu")
    ours, theirs = dict(denoiser.model.named_parameters()), dict(golden.denoiser.model.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert denoiser.fingerprint() == golden.denoiser.fingerprint()


def test_every_stored_tensor_is_used_as_it_is(golden):
    stored = load_file(golden.folder / "model.safetensors")
    names = native_names(family_of(json.loads((golden.folder / "config.json").read_text())), stored)
    loaded = dict(golden.denoiser.model.named_parameters())
    assert sorted(names.values()) == sorted(loaded)
    assert all(torch.equal(loaded[names[name]], tensor) for name, tensor in stored.items())


@pytest.mark.parametrize("family", SIZES)
def test_published_indexes_fit_exactly(hub, family):
    config = json.loads((hub / family / "config.json").read_text())
    stored = json.loads((hub / family / "model.safetensors.index.json").read_text())
    model = empty_model(family_of(config), config)
    needed = {name: tuple(p.shape) for name, p in model.named_parameters()}
    names = native_names(family_of(config), stored["weight_map"])
    assert sorted(names.values()) == sorted(needed)
    tensors, parameters = SIZES[family]
    assert len(needed) == tensors
    assert sum(p.numel() for p in model.parameters()) == parameters == stored["metadata"]["total_size"] // 2
    assert all(p.is_meta for p in model.parameters())
    assert model.config.is_causal is False


def test_what_a_denoiser_knows_of_its_checkpoint(golden):
    denoiser = golden.denoiser
    assert (denoiser.mask_id, denoiser.eos_id, denoiser.vocab_size, denoiser.max_length) == (250, 251, 256, 128)
    assert denoiser.hidden_size == 64
    assert len(denoiser.blocks) == 2
    assert denoiser.device == torch.device("cpu")
    assert denoiser.head is None
    assert not denoiser.training
    assert not any(p.requires_grad for p in denoiser.parameters())


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_dtype_is_that_asked_for_and_the_rotary_table_stays_exact(golden, dtype):
    denoiser = models.load(golden.folder, device="cpu", dtype=dtype)
    assert {p.dtype for p in denoiser.parameters()} == {torch.bfloat16}
    assert torch.equal(denoiser.model.model.rotary_emb.inv_freq, golden.denoiser.model.model.rotary_emb.inv_freq)
    logits = denoiser.logits(golden.tensors["input_ids"])
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - golden.denoiser.logits(golden.tensors["input_ids"])).abs().max() < 0.5


def test_bfloat16_files_become_float32_on_the_cpu(golden, tmp_path):
    folder = copy_folder(golden.folder, tmp_path)
    weights = {name: t.bfloat16() for name, t in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors")
    denoiser = models.load(folder, device="cpu")
    assert {p.dtype for p in denoiser.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ({"dtype": "int8"}, "dtype must be a floating dtype such as float32, bfloat16 or float16, got 'int8'"),
        ({"head": ""}, "head must be a folder or `owner/name` on the hub, got ''"),
        ({"head": 5}, "head must be a folder or `owner/name` on the hub, got 5"),
        ({"path_or_hub_id": 5}, "path_or_hub_id must be a checkpoint folder or `owner/name` on the hub, got 5"),
        ({"path_or_hub_id": ""}, "path_or_hub_id must be a checkpoint folder or `owner/name` on the hub, got ''"),
    ],
)
def test_what_names_nothing_is_refused(golden, named, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        unwrap(models.load)(**{"path_or_hub_id": golden.folder, **named})


def test_the_fingerprint_follows_the_weights_alone(golden, tmp_path):
    folder = copy_folder(golden.folder, tmp_path)
    base = golden.denoiser.fingerprint()
    assert models.load(folder, device="cpu", dtype="bfloat16").fingerprint() == base
    assert models.wrap(golden.denoiser.model, mask_id=250).fingerprint() == base
    weights = load_file(folder / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] += 1e-3
    save_file(weights, folder / "model.safetensors")
    assert models.load(folder, device="cpu").fingerprint() != base


def test_a_large_tensor_enters_the_fingerprint_as_a_comb():
    values = torch.arange(3 * checkpoint.SAMPLE, dtype=torch.float32)
    base = checkpoint.digest("a", values)
    values[1] += 1
    assert checkpoint.digest("a", values) == base
    values[3] += 1
    assert checkpoint.digest("a", values) != base


def test_weights_do_not_depend_on_the_file_once_loaded(golden, tmp_path):
    folder = copy_folder(golden.folder, tmp_path)
    denoiser = models.load(folder, device="cpu")
    (folder / "model.safetensors").write_bytes(b"\0" * (folder / "model.safetensors").stat().st_size)
    assert torch.equal(denoiser.model.lm_head.weight, golden.denoiser.model.lm_head.weight)


def test_tied_embeddings_share_one_tensor(golden, tmp_path):
    folder = copy_folder(golden.folder, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config |= {"weight_tying": True, "tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.transformer.ff_out.weight", weights.pop("lm_head.weight", None))
    save_file(weights, folder / "model.safetensors")
    denoiser = models.load(folder, device="cpu")
    assert denoiser.model.lm_head.weight is denoiser.model.model.embed_tokens.weight


MEASURE = """
import resource, sys, torch, models
warm = models.load(sys.argv[1], device="cpu")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
models.load(sys.argv[2], device="cpu")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in KiB on Linux only")
def test_loading_holds_the_model_and_little_more(goldens, tmp_path):
    """A model of 96 MiB in 4 shards peaks under model + 1.3 shards + 15 MiB."""
    golden = goldens["llada"]
    config = json.loads((golden.folder / "config.json").read_text())
    rows = 96 * 2**20 // 4 // 64 // 2
    config |= {"vocab_size": rows, "embedding_size": rows}
    plain = copy_folder(golden.folder, tmp_path / "plain")
    (plain / "config.json").write_text(json.dumps(config))
    weights = load_file(plain / "model.safetensors")
    big = {name: torch.ones(rows, 64) if t.shape == (256, 64) else t for name, t in weights.items()}
    save_file(big, plain / "model.safetensors")
    folder = shard(plain, tmp_path / "sharded", 4)
    largest = max(f.stat().st_size for f in folder.glob("*.safetensors")) // 2**20
    command = [sys.executable, "-c", MEASURE, golden.folder, folder]
    peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert peak < 96 + 1.3 * largest + 15
