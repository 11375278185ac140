"""What a program that a model wrote may do, and what becomes of one that does more."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from train.tasks.benchmarks import sandbox
from train.tasks.benchmarks.sandbox import Limits, run_program

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


@pytest.mark.parametrize(("last", "passes"), [("", True), ("assert False", False)])
def test_a_child_that_left_the_session_and_holds_the_way_out_is_not_waited_for(last, passes):
    program = f"import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(6)\n    os._exit(0)\n{last}\n"
    began = time.monotonic()
    assert run_program(program, Limits(seconds=1.5)) is passes
    assert time.monotonic() - began < 5


def test_limits_reach_the_program():
    program = (
        "import resource\nassert resource.getrlimit(resource.RLIMIT_NOFILE) == (64, 64)\n"
        f"assert 0 < resource.getrlimit(resource.RLIMIT_NPROC)[0] <= {sandbox.PROCESSES}\n"
        "assert resource.getrlimit(resource.RLIMIT_AS) == (256 << 20, 256 << 20)\n"
    )
    assert run_program(program, QUICK)


def test_a_program_whose_limits_cannot_be_set_is_not_counted_wrong():
    with pytest.raises(ValueError, match="run_code must be false where process limits cannot be set, got Limits"):
        run_program("pass", Limits(seconds=5.0, megabytes=1 << 60))


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
    monkeypatch.setattr("train.tasks.benchmarks.sandbox.os", SimpleNamespace(name="nt"))
    with pytest.raises(ValueError, match="run_code must be false on systems without process limits, got nt"):
        run_program("pass")


def test_annotations_that_are_text_are_looked_up_in_the_programs_own_module():
    program = (
        "from __future__ import annotations\nimport inspect\nfrom dataclasses import dataclass\nfrom typing import get_type_hints\n"
        "@dataclass\nclass Pair:\n    a: int = 1\n    b: Pair | None = None\n"
        "assert get_type_hints(Pair)['b'] == Pair | None\nassert 'class Pair' in inspect.getsource(Pair)\n"
    )
    assert run_program(program)
    assert not run_program(program + "assert Pair().a == 2\n")
