"""A save that is killed anywhere leaves the part of before or the new one, whole."""

from __future__ import annotations

import os

import pytest

import models
from models.checkpoints.manifest import ASIDE, MANIFEST
from models.heads.scoring_head import load_head, save_head
from tests.models.checkpoints.small_parts import head_of, same, small, write


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
