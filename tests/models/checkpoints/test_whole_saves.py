"""What is saved carries checksums and is whole or not there; what is damaged, or holds a number that is none, is refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import models
from models.checkpoints.families import CheckpointError
from models.checkpoints.manifest import ASIDE, MANIFEST, check_files
from models.checkpoints.sums import byte_sum
from models.heads.defaults import Defaults, read_defaults
from models.heads.scoring_head import load_head, save_head
from tests.models.checkpoints.small_parts import head_of, same, small, write
from train.base.export import load_weights
from train.seal import seal


def flip(file: Path, place: float, bit: int = 3) -> None:
    """Change one bit at a share of the file's length."""
    data = bytearray(file.read_bytes())
    data[int(place * (len(data) - 1))] ^= 1 << bit
    file.write_bytes(bytes(data))


@pytest.mark.parametrize("place", [0.02, 0.3, 0.5, 0.8, 1.0])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "generation_config.json", MANIFEST]
)
def test_a_flipped_bit_of_an_exported_base_is_refused(base, name, place):
    flip(base / name, place)
    with pytest.raises(ValueError, match=r"must|expected"):
        models.load(base, device="cpu")


@pytest.mark.parametrize("bit", range(8))
def test_every_bit_of_a_weight_counts(base, bit):
    flip(base / "model.safetensors", 0.6, bit)
    with pytest.raises(CheckpointError, match=r"model\.transformer.* of .* must"):
        models.load(base, device="cpu")


HEAD_FILES = ["head.safetensors", "adapter_model.safetensors", "adapter_config.json"]
FILES = [*HEAD_FILES, "cascade/cascade.safetensors", "cascade/adapter_model.safetensors", "cascade/adapter_config.json"]


@pytest.mark.parametrize("place", [0.1, 0.7, 1.0])
@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_of_a_head_is_refused(base, tmp_path, name, place):
    denoiser = models.load(base, device="cpu")
    save_head(head_of(denoiser, 1), tmp_path / "head")
    flip(tmp_path / "head" / name, place)
    with pytest.raises(ValueError, match=r"must"):
        load_head(tmp_path / "head", denoiser)


def test_a_file_that_is_gone_is_named(base):
    (base / "generation_config.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"must hold every file of its checksums.json, got no generation_config.json"
    ):
        models.load(base, device="cpu")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"kind": "base", "files": {"../x": "a"}}', '{"kind": "x", "files": {}}']
)
def test_a_manifest_that_is_none_is_refused(base, text):
    (base / MANIFEST).write_text(text)
    with pytest.raises(CheckpointError, match=r"must hold the checksums of a save, got a damaged file"):
        models.load(base, device="cpu")


@pytest.mark.parametrize(
    "content",
    [
        {"model.safetensors": "ab" * 32},
        {"algorithm": "sha256", "files": {"model.safetensors": "ab" * 32}},
        {"kind": "sha256", "entries": []},
        {"base": "another"},
    ],
)
def test_checksums_of_another_tool_are_no_manifest(base, content):
    (base / MANIFEST).write_text(json.dumps(content))
    denoiser = models.load(base, device="cpu")
    assert check_files(base) == {}
    assert denoiser.stored_bytes == ""
    write(small(0), base)
    assert check_files(base)["kind"] == "base"
    aside = base / ASIDE
    aside.mkdir()
    (aside / MANIFEST).write_text(json.dumps(content))
    models.load(base, device="cpu")  # what lies aside and is no save of ours is left alone
    assert (aside / MANIFEST).is_file()


def test_a_manifest_that_lost_the_name_of_its_kind_is_damaged(base):
    file = base / MANIFEST
    for wrong in ("kinc", "Kind"):
        file.write_text(file.read_text().replace('"kind"', f'"{wrong}"'))
        with pytest.raises(CheckpointError, match=r"must hold the checksums of a save, got a damaged file"):
            models.load(base, device="cpu")
        write(small(0), base)


def test_sums_tell_changes_and_exchanges_apart():
    generator = torch.Generator().manual_seed(0)
    for count in (1, 5, 4096, 3 * 2**15 + 17):
        plain = torch.randn(count, generator=generator).bfloat16()
        sums = {int(byte_sum(plain))}
        for place in (0, count // 2, count - 1):
            changed = plain.clone()
            changed[place] = changed[place] + 1 if changed[place] != changed[place] + 1 else 0
            sums.add(int(byte_sum(changed)))
        assert len(sums) == 1 + len({0, count // 2, count - 1})
    plain = torch.randn(2**16, generator=generator)
    rolled = [int(byte_sum(plain.roll(shift))) for shift in (0, 2, 4, 2**14, 2**15)]
    assert len(set(rolled)) == len(rolled)
    assert int(byte_sum(plain.view(256, 256).T)) == int(byte_sum(plain.view(256, 256).T.contiguous()))


def test_verify_sees_what_the_sampled_fingerprint_does_not(base, tmp_path, monkeypatch):
    monkeypatch.setattr("models.checkpoints.files.SAMPLE", 64)
    (base / MANIFEST).unlink()
    denoiser = models.load(base, device="cpu", verify=True)
    save_head(head_of(denoiser, 1), tmp_path / "head")
    weights = load_file(base / "model.safetensors")
    embedding = weights["model.transformer.wte.weight"].view(-1)
    embedding[1] = 0
    save_file(weights, base / "model.safetensors")
    blind = models.load(base, device="cpu", verify=False)
    assert blind.fingerprint() == denoiser.fingerprint()
    assert load_head(tmp_path / "head", blind).stored_bytes == ""
    with pytest.raises(ValueError, match=r"got one that looks the same and differs in some bytes"):
        models.load(base, device="cpu", head=tmp_path / "head", verify=True)


def test_the_same_values_in_another_format_keep_their_head(base, tmp_path):
    (base / MANIFEST).unlink()
    denoiser = models.load(base, device="cpu", verify=True)
    save_head(head_of(denoiser, 1), tmp_path / "head")
    weights = {name: tensor.float() for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(weights, base / "model.safetensors")
    wide = models.load(base, device="cpu", head=tmp_path / "head", verify=True)
    assert wide.stored_bytes.startswith("float32:")
    assert denoiser.stored_bytes.startswith("bfloat16:")


def test_files_exchanged_between_two_saves_are_refused(base, tmp_path):
    denoiser = models.load(base, device="cpu")
    for seed in (1, 2):
        save_head(head_of(denoiser, seed), tmp_path / str(seed))
    shutil.copyfile(tmp_path / "2" / "adapter_model.safetensors", tmp_path / "1" / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors must be as it was saved"):
        load_head(tmp_path / "1", denoiser)


def test_a_folder_without_checksums_still_loads(base, tmp_path):
    (base / MANIFEST).unlink()
    denoiser = models.load(base, device="cpu")
    assert denoiser.stored_bytes == ""
    assert check_files(base) == {}
    load_weights(small(9), base)


def test_weights_to_start_from_are_checked_too(base):
    flip(base / "model.safetensors", 0.6)
    with pytest.raises(CheckpointError, match=r"must be as it was saved"):
        load_weights(small(9), base)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "generation_config.json"])
def test_a_pipe_is_refused_at_once(base, name):
    (base / MANIFEST).unlink()
    (base / name).unlink()
    os.mkfifo(base / name)
    with pytest.raises(CheckpointError, match=rf"{name} must be a regular file, got a folder, a pipe or a device"):
        models.load(base, device="cpu")


@pytest.mark.parametrize("name", ["../../x.safetensors", "/x.safetensors", "a/b.safetensors", "..", "", 3, None])
def test_an_index_names_files_of_its_folder_alone(base, name):
    (base / MANIFEST).unlink()
    index = {"weight_map": {"a": "model.safetensors", "b": name}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"must name files of its own folder, got"):
        models.load(base, device="cpu")


@pytest.mark.parametrize(
    "change",
    [
        {"width": 10**9},
        {"rank": 10**6},
        {"rank": 3},
        {"width": 60000},
        {"pairs": 60000},
        {"pairs": 8, "reach": 50000},
        {"blocks": 10**7},
        {"width": "8"},
        {"rank": True},
        {"feature_names": 3},
        {"base": ""},
        {"base": True},
        {"base": 1.5},
        {"base": {"a": 1}},
    ],
    ids=str,
)
def test_a_head_s_config_is_judged_before_anything_is_allocated(base, tmp_path, change):
    denoiser = models.load(base, device="cpu")
    save_head(head_of(denoiser, 1), tmp_path)
    (tmp_path / MANIFEST).unlink()
    file = tmp_path / "head.safetensors"
    with safe_open(file, framework="pt") as opened:
        config = json.loads(opened.metadata()["config"])
    save_file(load_file(file), file, metadata={"config": json.dumps(config | change)})
    with pytest.raises(ValueError, match=r"must"):
        load_head(tmp_path, denoiser)


def test_a_head_whose_defaults_were_changed_by_hand_is_sealed_as_it_is(base, tmp_path):
    denoiser = models.load(base, device="cpu")
    head = head_of(denoiser, 1)
    head.defaults = Defaults("confidence", 0.01, 0)
    save_head(head, tmp_path)
    (tmp_path / "traces").mkdir()  # of the run, and none of the head's
    file = tmp_path / "defaults.json"
    file.write_text(file.read_text().replace("0.01", "0.02"))
    with pytest.raises(CheckpointError, match=r"with its --base, takes it as it is"):
        load_head(tmp_path, denoiser)
    seal(folder=tmp_path, base=str(base))
    assert load_head(tmp_path, denoiser).defaults == Defaults("confidence", 0.02, 0)
    assert same(load_head(tmp_path, denoiser), head)


@pytest.mark.parametrize(
    ("written", "meant"), [("true", "exact"), ("false", None), ('"subset"', "subset"), ("null", None)]
)
def test_defaults_of_an_earlier_release_say_how_drafts_are_checked(tmp_path, written, meant):
    (tmp_path / "defaults.json").write_text(
        f'{{"rule": "confidence", "risk_bound": 0.1, "looks": 0, "checked": {written}}}'
    )
    assert read_defaults(tmp_path).checked == meant


@pytest.mark.parametrize("name", ["head.safetensors", "adapter_model.safetensors", "cascade/cascade.safetensors"])
def test_weights_that_the_checksums_of_a_head_do_not_name_are_refused(base, tmp_path, name):
    denoiser = models.load(base, device="cpu")
    save_head(head_of(denoiser, 1), tmp_path / "head")
    held = json.loads((tmp_path / "head" / MANIFEST).read_text())
    del held["files"][name]
    (tmp_path / "head" / MANIFEST).write_text(json.dumps(held))
    with pytest.raises(
        CheckpointError, match=rf"checksums\.json must name all weights of its save, got {name} beside it"
    ):
        load_head(tmp_path / "head", denoiser)


def test_checksums_of_a_base_without_sums_of_its_tensors_are_damaged(base):
    held = json.loads((base / MANIFEST).read_text())
    del held["tensors"]
    (base / MANIFEST).write_text(json.dumps(held))
    with pytest.raises(CheckpointError, match=r"checksums\.json must hold the checksums of a save, got a damaged file"):
        models.load(base, device="cpu")
