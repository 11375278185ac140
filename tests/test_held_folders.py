"""One command at a time writes into a folder; a second one is told who holds it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from decoding.files.folder_lock import hold_folder
from tests.plain_command import ROOT, command, files, told
from train.commands.command_line import run

HOLDER = (
    "import sys, time\nfrom pathlib import Path\nfrom decoding.files.folder_lock import hold_folder\n"
    "with hold_folder(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_writer_is_refused_and_told_who_holds_the_folder(capsys, tmp_path, holder):
    sentence = told(capsys, "--out", str(tmp_path / "run"))
    assert sentence.startswith("command.py: out must be a folder that no other run writes to, got ")
    assert f"held by process {holder.pid} on " in sentence
    assert files(tmp_path / "run") == {}


def test_a_killed_writer_frees_the_folder(tmp_path, holder):
    holder.kill()
    holder.wait()
    run(command, ["--out", str(tmp_path / "run")])
    assert set(files(tmp_path / "run")) == {"command.yaml"}


def test_only_the_first_of_several_ranks_holds_the_folder(tmp_path, holder, monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    with hold_folder(tmp_path / "run"):
        pass
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ValueError, match="held by process"), hold_folder(tmp_path / "run"):
        pass


def test_a_process_holds_its_folder_as_often_as_it_likes(tmp_path):
    with hold_folder(tmp_path), hold_folder(tmp_path / "a" / ".."):
        pass
    with hold_folder(tmp_path):
        pass


@pytest.mark.parametrize("name", ["file", "file/run", "", " "])
def test_what_is_no_folder_is_refused(capsys, tmp_path, name):
    (tmp_path / "file").write_text("x")
    out = str(tmp_path / name) if name.strip() else name
    assert told(capsys, "--out", out).startswith(f"command.py: out must be a folder, got {out.strip() or repr(out)}")


def test_want_of_memory_is_one_sentence(capsys, tmp_path):
    def starved(out: str = "out") -> None:
        """Ask for too much."""
        torch.empty(1 << 50)

    sentence = told(capsys, "--out", str(tmp_path / "run"), function=starved)
    assert sentence.startswith("starved.py: sizes must fit the memory there is, got: ")
