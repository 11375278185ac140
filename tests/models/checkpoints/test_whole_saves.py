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
from transformers import LlamaConfig, LlamaForCausalLM

import models
from decoding.features import NAMES
from models.checkpoints.families import CheckpointError
from models.checkpoints.manifest import ASIDE, MANIFEST, check_files
from models.checkpoints.sums import byte_sum, check_finite
from models.heads.cascade import Cascade, CascadeConfig
from models.heads.config import HeadConfig
from models.heads.defaults import Defaults, read_defaults
from models.heads.scoring_head import ScoringHead, load_head, save_head
from train.base.export import export, load_weights
from train.seal import seal

TOKENIZER = Path(__file__).parents[3] / "checkpoints" / "reason-7m"


def small(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    rope = {"rope_type": "default", "rope_theta": 1e4}
    more = {"num_key_value_heads": 2, "vocab_size": 768, "max_position_embeddings": 256, "rope_parameters": rope}
    return LlamaForCausalLM(LlamaConfig(**sizes, **more, rms_norm_eps=1e-5, is_causal=False, pad_token_id=None))


def write(model, folder, **more) -> Path:
    export(model, folder, tokenizer=TOKENIZER, mask_id=1, eos_id=0, **more)
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    return write(small(0), tmp_path_factory.mktemp("base") / "base")


@pytest.fixture
def base(exported, tmp_path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "base"))


def head_of(denoiser, seed: int, variant: str = "lora") -> ScoringHead:
    torch.manual_seed(seed)
    bound = denoiser.fingerprint()
    head = ScoringHead(HeadConfig(variant, NAMES, rank=2, width=8, base=bound), denoiser)
    head.cascade = Cascade(CascadeConfig(rank=2, base=bound), denoiser)
    with torch.no_grad():
        for own in head.parameters():
            if own.requires_grad:
                own.normal_(std=0.1)
        for own in head.cascade.parameters():
            if own.requires_grad:
                own.normal_(std=0.1)
    return head


def values(head: ScoringHead) -> dict[str, torch.Tensor]:
    own = {n: t for n, t in head.state_dict().items() if "lora_" in n or not n.startswith(("stream.", "cascade."))}
    return own | {f"cascade.{n}": t for n, t in head.cascade.state_dict().items() if "lora_" in n or "stream" not in n}


def same(one: ScoringHead, other: ScoringHead) -> bool:
    return all(torch.equal(value, values(other)[name]) for name, value in values(one).items())


def flip(file: Path, place: float, bit: int = 3) -> None:
    """Change one bit at a share of the file's length."""
    data = bytearray(file.read_bytes())
    data[int(place * (len(data) - 1))] ^= 1 << bit
    file.write_bytes(bytes(data))


# --- bit flips --------------------------------------------------------------------------------------------------------------


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


# --- every byte of a base ---------------------------------------------------------------------------------------------------


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


# --- numbers that are none --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("sealed", [True, False])
def test_a_base_with_a_value_that_is_none_is_refused_by_its_tensor(base, value, sealed):
    if not sealed:
        (base / MANIFEST).unlink()
    weights = load_file(base / "model.safetensors")
    weights["model.transformer.blocks.1.ff_out.weight"].view(-1)[7] = value
    save_file(weights, base / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"model\.transformer\.blocks\.1\.ff_out\.weight of .* must hold finite numbers"
    ):
        models.load(base, device="cpu")


def test_a_number_format_that_overflows_is_refused_by_the_tensor(base):
    (base / MANIFEST).unlink()
    weights = load_file(base / "model.safetensors")
    weights["model.transformer.wte.weight"].view(-1)[3] = 1e6
    save_file(weights, base / "model.safetensors")
    models.load(base, device="cpu")
    with pytest.raises(CheckpointError, match=r"wte\.weight of .* must hold finite numbers, got inf in it"):
        models.load(base, device="cpu", dtype="float16")


def test_large_finite_values_are_no_such_case():
    check_finite({"a": torch.full((64,), 3e38), "b": torch.full((64,), 6e4, dtype=torch.float16)}, "here")
    for value in ([3e38] * 4 + [float("nan")], [float("inf"), -float("inf")]):
        with pytest.raises(CheckpointError, match=r"b of here must hold finite numbers"):
            check_finite({"a": torch.ones(3), "b": torch.tensor(value)}, "here")


@pytest.mark.parametrize("name", ["head.safetensors", "adapter_model.safetensors", "cascade/cascade.safetensors"])
def test_a_head_with_a_value_that_is_none_is_refused(base, tmp_path, name):
    denoiser = models.load(base, device="cpu")
    save_head(head_of(denoiser, 1), tmp_path / "head")
    (tmp_path / "head" / MANIFEST).unlink()
    file = tmp_path / "head" / name
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    stored = load_file(file)
    stored[sorted(stored)[0]].view(-1)[0] = float("nan")
    save_file(stored, file, metadata=metadata)
    with pytest.raises(ValueError, match=r"must hold finite numbers, got nan in it"):
        load_head(tmp_path / "head", denoiser)


@pytest.mark.parametrize("spread", [0.0, -1.0])
def test_a_spread_that_is_none_is_refused(base, tmp_path, spread):
    denoiser = models.load(base, device="cpu")
    head = head_of(denoiser, 1, "linear")
    head.spread[2] = spread
    save_head(head, tmp_path / "head")
    with pytest.raises(ValueError, match=r"spread of the head in .* must be above 0, got"):
        load_head(tmp_path / "head", denoiser)


def test_nothing_is_saved_of_a_head_that_diverged(base, tmp_path):
    denoiser = models.load(base, device="cpu")
    head = head_of(denoiser, 1)
    save_head(head, tmp_path / "head")
    broken = head_of(denoiser, 2)
    with torch.no_grad():
        broken.cascade.rest.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"rest.bias of the cascade to save must hold finite numbers"):
        save_head(broken, tmp_path / "head")
    assert same(load_head(tmp_path / "head", denoiser), head)
    assert not (tmp_path / "head" / ASIDE).exists()


def test_nothing_is_exported_of_a_model_that_diverged(base):
    broken = small(3)
    with torch.no_grad():
        broken.model.norm.weight[0] = float("nan")
    before = {file.name: file.read_bytes() for file in base.iterdir()}
    with pytest.raises(CheckpointError, match=r"ln_f\.weight of the model to export to .* must hold finite numbers"):
        write(broken, base)
    assert before == {file.name: file.read_bytes() for file in base.iterdir()}


# --- kills ------------------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


def killed_at(monkeypatch, number: int):
    """The process ends before the n-th rename, and cleans nothing up."""
    count, plain = [0], os.replace

    def rename(source, target):
        count[0] += 1
        if count[0] > number:
            raise Killed
        plain(source, target)

    monkeypatch.setattr("os.replace", rename)
    monkeypatch.setattr("pathlib.Path.replace", lambda self, target: rename(self, target))
    monkeypatch.setattr("shutil.rmtree", lambda *args, **kwargs: None)
    return count


def attempt(work) -> bool:
    try:
        work()
    except Killed:
        return False
    return True


@pytest.mark.parametrize("number", range(10))
def test_a_second_head_is_whole_or_not_there_wherever_it_is_killed(base, tmp_path, number):
    denoiser = models.load(base, device="cpu")
    old, new = head_of(denoiser, 1), head_of(denoiser, 2)
    folder = tmp_path / "head"
    save_head(old, folder)
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, number)
        done = attempt(lambda: save_head(new, folder))
    found = load_head(folder, denoiser)
    assert same(found, old if number == 0 else new)  # the first rename makes the save whole
    assert done == (number >= 8)
    save_head(old, folder)
    assert same(load_head(folder, denoiser), old)
    assert not (folder / ASIDE).exists()


@pytest.mark.parametrize("number", range(12))
def test_a_second_export_is_whole_or_not_there_wherever_it_is_killed(base, number):
    old = models.load(base, device="cpu").fingerprint()
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, number)
        attempt(lambda: write(small(5), base, max_shard_size=20_000))
    found = models.load(base, device="cpu").fingerprint()
    assert (found == old) == (number == 0)
    write(small(0), base)
    assert models.load(base, device="cpu").fingerprint() == old
    assert not list(base.glob("model-*")) + list(base.glob("*.index.json"))


def test_parts_of_an_earlier_save_give_way(base, tmp_path):
    denoiser = models.load(base, device="cpu")
    save_head(head_of(denoiser, 1), tmp_path)
    plain = head_of(denoiser, 2, "linear")
    plain.cascade = None
    save_head(plain, tmp_path)
    assert load_head(tmp_path, denoiser).cascade is None
    assert {file.name for file in tmp_path.iterdir() if file.is_file()} == {"head.safetensors", MANIFEST}


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


# --- what would be waited for or allocated ----------------------------------------------------------------------------------


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
