"""Files are written aside and renamed, and what a killed process left of that is gone when the same command has run again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from decoding.files.aside import written_aside
from decoding.files.folder_lock import LOCK, hold_folder
from tests.plain_command import ROOT, command, told
from train.commands.command_line import run

KILLED = (
    "import os, signal, sys\nfrom pathlib import Path\nfrom decoding.files.aside import written_aside\n"
    "from decoding.files.folder_lock import hold_folder\nout = Path(sys.argv[1])\n"
    "with hold_folder(out), written_aside(out / 'part-1' / 'table.json') as aside:\n    aside.write_text('half')\n"
    "    os.kill(os.getpid(), signal.SIGKILL)\n"
)


def names(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def killed(tmp_path):
    """A folder whose writer was killed before it renamed a file."""
    out = tmp_path / "out"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(out)], cwd=ROOT, env={**os.environ, "PYTHONPATH": "."})
    assert ended.returncode == -signal.SIGKILL
    assert names(out) == {LOCK, "part-1/.table.json.aside"}
    return out


def broken(file: Path) -> None:
    with written_aside(file) as aside:
        aside.write_text("sec")
        raise OSError("the disk is full")


def test_a_file_is_there_as_a_whole_and_nothing_beside_it(tmp_path):
    file = tmp_path / "new" / "table.json"
    with written_aside(file) as aside:
        aside.write_text("first")
        assert not file.exists()
    with pytest.raises(OSError, match="full"):
        broken(file)
    assert file.read_text() == "first"
    assert names(tmp_path) == {"new/table.json"}


def test_what_a_killed_run_left_aside_is_gone_at_the_end_of_the_next(killed):
    run(command, ["--out", str(killed)])
    assert names(killed) == {"command.yaml"}


def test_a_call_that_is_refused_because_all_is_done_sweeps_too(killed, capsys):
    (killed / "result.json").write_text("{}")
    assert "rate must be at most 1" in told(capsys, "--out", str(killed), "--rate", "2")
    assert names(killed) == {"result.json"}


def test_only_what_was_written_aside_is_swept(killed):
    for name in ("film.part", ".film.part", "table.aside", ".git/.a.aside", "other/.a.aside", f"other/{LOCK}"):
        (killed / name).parent.mkdir(exist_ok=True)
        (killed / name).write_text("mine")
    with hold_folder(killed):
        pass
    assert names(killed) == {
        "film.part",
        ".film.part",
        "table.aside",
        ".git/.a.aside",
        "other/.a.aside",
        f"other/{LOCK}",
    }


def test_a_folder_within_one_held_by_this_process_is_not_swept_again(tmp_path):
    with hold_folder(tmp_path), written_aside(tmp_path / "table.json") as aside:
        aside.write_text("whole")
        with hold_folder(tmp_path):
            assert aside.is_file()
    assert names(tmp_path) == {"table.json"}
