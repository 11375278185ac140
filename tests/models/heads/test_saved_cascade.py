"""A cascade in a folder: it comes back with its head, and what is not its own is refused."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file, save_file

from decoding.features import NAMES
from models.heads.cascade import CASCADE, FILE, load_cascade, own_state
from models.heads.config import HeadConfig
from models.heads.scoring_head import ScoringHead, load_head, save_head
from tests.models.heads.random_cascade import case, every_third, make, reading_of, say
from tests.saved_cascade import save_cascade

pytestmark = pytest.mark.filterwarnings("ignore:.*(LeafSpec|enable_nested_tensor)")


def head_with(golden, variant, blocks, seed=None) -> ScoringHead:
    base = "" if variant == "features" else golden.denoiser.fingerprint()
    head = ScoringHead(HeadConfig(variant, NAMES, rank=2, width=16, base=base), golden.denoiser).eval()
    head.cascade = make(golden, blocks=blocks, seed=seed)
    return head


@pytest.mark.parametrize(("variant", "blocks", "taps"), [("features", 2, 2), ("lora", 1, 1), ("lora", 2, 2)])
def test_a_head_taps_the_blocks_of_whichever_part_reads_more(golden, variant, blocks, taps):
    count = len(golden.denoiser.blocks)
    head = head_with(golden, variant, blocks)
    assert head.taps_ahead == tuple(range(count - taps, count))
    assert head.taps == (() if variant == "features" else (count - 1,))


def test_it_comes_back_from_the_folder_of_its_head(golden, tmp_path):
    head = head_with(golden, "lora", 2, seed=3)
    save_head(head, tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))
    assert not any(name.startswith("cascade") for name in load_file(tmp_path / "head.safetensors"))
    back = load_head(tmp_path, golden.denoiser).cascade
    assert back is not None
    assert asdict(back.config) == asdict(head.cascade.config)
    reading = reading_of(golden, back, *case(golden))
    committed = every_third(reading.rows)
    assert torch.equal(say(back, reading, committed), say(head.cascade.fold(), reading, committed))


def test_a_head_without_one_has_none(golden, tmp_path):
    head = head_with(golden, "features", 1)
    head.cascade = None
    save_head(head, tmp_path)
    assert load_head(tmp_path, golden.denoiser).cascade is None


def test_half_precision_is_read_back_in_float32(golden, tmp_path):
    save_cascade(make(golden, seed=4), tmp_path)
    (tmp_path / "checksums.json").unlink()  # of the files before they are converted
    for file in tmp_path.glob("*.safetensors"):
        meta = {"config": json.dumps(asdict(make(golden).config))} if file.name == FILE else None
        save_file({name: value.bfloat16() for name, value in load_file(file).items()}, file, metadata=meta)
    back = load_cascade(tmp_path, golden.denoiser)
    assert {p.dtype for p in back.parameters() if p.requires_grad} == {torch.float32}


def test_what_is_not_its_own_is_refused(goldens, tmp_path):
    golden, other = goldens["llada"], goldens["dream"]
    save_cascade(make(golden), tmp_path / CASCADE)
    with pytest.raises(ValueError, match=r"cascade in .* must be used on its own base \(\w{12}\), got a base \w{12}$"):
        load_cascade(tmp_path / CASCADE, other.denoiser)
    with pytest.raises(ValueError, match="must be a cascade of this project, got a foreign, broken or missing file"):
        load_cascade(tmp_path, golden.denoiser)
    config = {"config": json.dumps({**asdict(make(golden).config), "base": ""})}
    own = own_state(make(golden))
    save_file({**own, "rest.bias": torch.zeros(2)}, tmp_path / CASCADE / FILE, metadata=config)
    with pytest.raises(ValueError, match=r"must hold the 3 tensors of this part, got others for rest\.bias"):
        load_cascade(tmp_path / CASCADE, golden.denoiser)
    (tmp_path / CASCADE / FILE).write_bytes(b"no")
    with pytest.raises(ValueError, match="foreign, broken or missing"):
        load_cascade(tmp_path / CASCADE, golden.denoiser)


def test_a_head_folder_with_a_wrong_cascade_is_refused(goldens, tmp_path):
    golden, other = goldens["llada"], goldens["dream"]
    head = ScoringHead(HeadConfig("linear", NAMES), golden.denoiser)
    head.cascade = make(golden)
    save_head(head, tmp_path)
    assert load_head(tmp_path, golden.denoiser).cascade is not None
    with pytest.raises(
        ValueError, match=r"^the cascade in .* must be used on its own base \(\w{12}\), got a base \w{12}$"
    ):
        load_head(tmp_path, other.denoiser)
    adapter = tmp_path / CASCADE / "adapter_model.safetensors"
    save_file({name: value[..., :1].contiguous() for name, value in load_file(adapter).items()}, adapter)
    with pytest.raises(ValueError, match=r"must hold the 14 LoRA matrices of this head, got other names or shapes$"):
        load_head(tmp_path, golden.denoiser)
    adapter.write_bytes(b"no")
    with pytest.raises(ValueError, match=r"must be a whole safetensors file, got a broken one$"):
        load_head(tmp_path, golden.denoiser)
    adapter.unlink()
    with pytest.raises(ValueError, match=r"must hold adapter_model.safetensors, got .*$"):
        load_head(tmp_path, golden.denoiser)
    (tmp_path / CASCADE / FILE).unlink()
    with pytest.raises(ValueError, match=r"must be a cascade of this project, got a foreign, broken or missing file$"):
        load_head(tmp_path, golden.denoiser)
