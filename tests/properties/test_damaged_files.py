"""Files damaged on purpose: what carries a checksum is refused; the rest is refused in one sentence or read as what it is."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.properties.contract import SCALE, value_or_sentence
from tests.properties.damage import damaged
from tests.properties.kinds import Kind, every_kind

EACH = 5 if SCALE <= 1 else int(50 * SCALE)
NAMES = (
    "base/model.safetensors", "base/config.json", "base/tokenizer.json", "base/tokenizer_config.json", "base/checksums.json",
    "open/model-00001-of-00002.safetensors", "open/model.safetensors.index.json", "open/config.json", "open/tokenizer.json",
    "open/tokenizer_config.json", "open/generation_config.json", "dream/config.json", "lora/head.safetensors",
    "lora/adapter_model.safetensors", "lora/adapter_config.json", "lora/cascade/cascade.safetensors",
    "lora/cascade/adapter_model.safetensors", "lora/checksums.json", "linear/head.safetensors", "linear/defaults.json",
    "adapter/adapter_config.json", "adapter/adapter_model.safetensors", "toy/model.safetensors", "toy/config.json",
    "prompts/p.jsonl/None", "prompts/p.jsonl/countdown3", "prompts/p.txt/None", "prompts/p.txt/countdown3",
    "prompts/p.jsonl.gz/None", "prompts/c.jsonl/None", "prompts/g.jsonl/gsm8k", "ledger", "traces/header", "traces/part",
    "calibration", "bulk", "budget", "journal", "config", "log", "fitted", "outcomes", "texts", "rows", "resume",
)  # fmt: skip

pytestmark = pytest.mark.filterwarnings("default")  # of what other libraries say of a broken file


@pytest.fixture(scope="module")
def kinds(tmp_path_factory, write_tiny) -> dict[str, Kind]:
    return every_kind(tmp_path_factory.mktemp("sound"), write_tiny)


def test_every_kind_is_damaged(kinds):
    assert tuple(kinds) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_refused_in_one_sentence_or_read_as_what_it_is(kinds, tmp_path, name):
    kind = kinds[name]
    data = (kind.folder / kind.file).read_bytes()
    sound = kind.read(shutil.copytree(kind.folder, tmp_path / "sound"))
    wrong, said = [], Counter()
    for number in range(EACH):
        bad = damaged(data, number, name, text=kind.text)
        if bad == data:
            continue
        folder = shutil.copytree(kind.folder, tmp_path / str(number))
        (folder / kind.file).write_bytes(bad)
        try:
            found = value_or_sentence(lambda folder=folder: (kind.read(folder),))
        except BaseException as error:  # noqa: BLE001 (all of them are counted and shown)
            wrong.append(f"{number}: {type(error).__name__}: {str(error)[:300]}")
            continue
        finally:
            shutil.rmtree(folder)
        said["refused" if found is None else "read"] += 1
        if found is not None and (kind.sealed or (kind.same and found[0] != sound)):
            wrong.append(f"{number}: accepted, {len(bad)} bytes")
    assert wrong == [], f"{len(wrong)} of {EACH}, {dict(said)}"


def write(folder: Path, kind: Kind, number: int) -> Path:
    """A damaged file of a number beside its sound neighbours, to look at."""
    shutil.copytree(kind.folder, folder)
    data = (kind.folder / kind.file).read_bytes()
    (folder / kind.file).write_bytes(damaged(data, number, kind.name, text=kind.text))
    return folder
