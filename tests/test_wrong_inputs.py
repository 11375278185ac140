"""Inputs that used to end in a traceback: devices, JSON of other shapes, numbers of numpy, half letters. One sentence, or taken."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

import generate as generate_command
from decoding.api import generate
from decoding.prompts import read_prompts
from models.devices import find_device
from models.toys.toy import GroupDenoiser
from train.commands.command_line import run, shipped
from train.commands.folders import check_model

SUM = ("--prompt", "2,3,4,24", "--task", "countdown3", "--policy", "threshold")


def told(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        run(generate_command.generate, [*SUM, *arguments])
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1, printed.err
    return printed.err


@pytest.mark.parametrize("device", ["moon", "cudua", "cuda:99", "CPU", "0", "meta", "vulkan", "hpu"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(ValueError, match=r"^device must be one .*, got '" + device):
        find_device(device)


def test_a_device_that_is_there_is_taken():
    assert find_device("cpu") == find_device(torch.device("cpu")) == torch.device("cpu")
    assert find_device(None) == find_device("") == torch.device("cuda" if torch.cuda.is_available() else "cpu")


def test_the_command_refuses_a_device_in_one_sentence(capsys):
    assert told(capsys, "--device", "moon").startswith("generate.py: device must be one of cpu")


@pytest.mark.parametrize("text", ["[]", "3", "null", '"x"', "{", "", "[" * 100_000, '{"a": "\\ud800"'])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_json_of_another_shape_is_refused_with_its_file(tmp_path, name, text):
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(shipped("checkpoints/reason-7m") / file, tmp_path / file)
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=name):
        check_model(str(tmp_path), "1")


@pytest.mark.parametrize(("tokens", "sound"), [(3, False), (["x"], False), ({"id": 1}, False), ([{"id": 1}], True)])
def test_added_tokens_of_another_shape_are_refused(tmp_path, tokens, sound):
    source = shipped("checkpoints/reason-7m")
    for file in ("config.json", "tokenizer_config.json"):
        shutil.copyfile(source / file, tmp_path / file)
    found = json.loads((source / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps({**found, "added_tokens": tokens}))
    with nullcontext() if sound else pytest.raises(ValueError, match=r"^added_tokens in"):
        check_model(str(tmp_path), "1")


@pytest.fixture
def toy() -> GroupDenoiser:
    return GroupDenoiser(2, 3)


def test_a_mask_may_be_lists_or_an_array(toy):
    tokens = torch.tensor([[0, 0, 1], [1, 0, 1]])
    mask = [[0, 1, 1], [1, 1, 1]]
    wanted = generate(
        toy, tokens, "threshold", gen_length=6, block_length=3, attention_mask=torch.tensor(mask)
    ).sequences
    for given in (mask, np.array(mask), np.array(mask, bool)):
        found = generate(toy, tokens, "threshold", gen_length=6, block_length=3, attention_mask=given).sequences
        assert torch.equal(found, wanted)
    for wrong in ([[0, 1, 1]], [[0, 1], [1]], "mask", [["a"] * 3] * 2, {"a": 1}):
        with pytest.raises(ValueError, match=r"^attention_mask must "):
            generate(toy, tokens, "threshold", gen_length=6, block_length=3, attention_mask=wrong)


def test_numbers_of_numpy_and_torch_are_numbers(toy):
    wanted = generate(toy, [[0, 1]], "threshold", gen_length=6, block_length=3, threshold=0.5).sequences
    for number, real in ((np.int64, np.float32), (np.int32, np.float64), (torch.tensor, torch.tensor)):
        settings = {
            "max_new_tokens": number(6),
            "block_size": number(3),
            "threshold": real(0.5),
        }  # typed by no annotation
        for prompts in ([[0, 1]], [[np.int64(0), np.int64(1)]], np.array([[0, 1]]), [np.array([0, 1])]):
            assert torch.equal(generate(toy, prompts, "threshold", **settings).sequences, wanted)


@pytest.mark.parametrize(
    "prompts",
    [
        [[2**63]],
        [[-(2**70)]],
        [[0.5]],
        [["a"]],
        [[None]],
        np.array([[0.5]]),
        np.array(["a"]),
        [np.array([[0]])],
        {},
        3,
        [[]],
        b"3,5",
        bytearray(b"3"),
        [b"3,5", b"7"],
    ],
)
def test_prompts_that_are_no_ids_are_refused(toy, prompts):
    with pytest.raises(ValueError, match=r"prompts? (must|\d)"):
        read_prompts(prompts, None, toy)


def test_half_a_letter_is_refused(toy):
    toy.encode = lambda prompts, chat=None: [[0] for _ in prompts]
    assert read_prompts(["a", "😀"], None, toy).tokens.shape == (2, 1)
    with pytest.raises(ValueError, match=r"^prompt 1 must be whole letters, got '\\ud83d' in it$"):
        read_prompts(["a", "\ud83d"], None, toy)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error: No space left")])
def test_a_full_disk_is_one_sentence(capsys, error):
    def save(out: str | None = None) -> None:
        """Save."""
        raise error

    with pytest.raises(SystemExit) as ended:
        run(save, [])
    assert ended.value.code == 2
    assert "No space left" in capsys.readouterr().err


def test_a_tokenizer_with_settings_of_a_wrong_type_is_refused(tmp_path):
    from models.checkpoints.tokenizer import load_tokenizer

    source = shipped("checkpoints/reason-7m")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / file, tmp_path / file)
    assert load_tokenizer(tmp_path) is not None
    settings = json.loads((source / "tokenizer_config.json").read_text())
    for wrong in ({"model_max_length": "x"}, {"model_max_length": []}):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, **wrong}))
        with pytest.raises(ValueError, match=r"the tokenizer files of .* must be readable"):
            load_tokenizer(tmp_path)
    assert Path(tmp_path).is_dir()
