"""What a program that a model wrote may do, and what becomes of one that does more."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from train.tasks.sandbox import Limits, run_program

QUICK = Limits(seconds=3.0, megabytes=256)


@pytest.mark.parametrize(
    ("program", "passes"),
    [
        ("x = 1\nassert x == 1", True),
        ("", True),
        ("assert False", False),
        ("def broken(:", False),
        ("import sys\nsys.exit(0)", False),
        ("import os\nos._exit(0)", False),
        ("print('x' * 100_000_000)", True),
        ("input()", False),
        ("x = bytearray(1 << 30)", False),
        ("open('big', 'wb').write(bytes(2 << 20))", False),
        ("if __name__ == '__main__':\n    assert False", True),
        ("import os\nassert os.listdir('.') == ['program.py'] and 'SECRET' not in os.environ", True),
        ("import sys\nassert sys.flags.isolated and len(sys.argv) == 1", True),
        ("x = '\u00e4\\ud800'", True),
    ],
)
def test_only_a_program_that_comes_to_its_end_passes(program, passes, monkeypatch):
    monkeypatch.setenv("SECRET", "1")
    assert run_program(program, QUICK) is passes


def test_a_program_without_end_is_killed_with_all_that_it_started(tmp_path):
    beats = tmp_path / "beats"
    program = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    while True:\n"
        f"        open({str(beats)!r}, 'a').write('x')\n"
        "        time.sleep(0.02)\n"
        "while True: pass\n"
    )
    began = time.monotonic()
    assert not run_program(program, Limits(seconds=0.7))
    assert time.monotonic() - began < 5
    size = beats.stat().st_size
    assert size > 0
    time.sleep(0.2)
    assert beats.stat().st_size == size


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run_program("open('file', 'w').write('x')", QUICK)
    assert not list(tmp_path.iterdir())
    assert Path.cwd() != tmp_path


def test_limits_are_above_zero_and_systems_without_them_are_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"seconds must be above 0, got 0\.0"):
        Limits(seconds=0.0)
    with pytest.raises(ValueError, match="megabytes must be above 0, got 0"):
        Limits(megabytes=0)
    monkeypatch.setattr("train.tasks.sandbox.os", SimpleNamespace(name="nt"))
    with pytest.raises(ValueError, match="run_code must be false on systems without process limits, got nt"):
        run_program("pass")
