"""Whatever the README says can be run runs."""

import re
import shlex
from pathlib import Path

import pytest

import generate as generate_command
from decoding.names import POLICIES
from train.commands.command_line import parser_of, run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.M | re.S)
LINES = [line.partition(" #")[0].strip() for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
LINES = [line for line in LINES if line and not line.startswith("#")]
OF_GENERATE = [line for line in LINES if line.startswith("python generate.py ")]


def test_every_line_is_of_a_kind_that_is_tested():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    others = [line for line in LINES if line not in OF_GENERATE]
    for line in others:
        command, name = line.split()[:2]
        assert (command == "make" and name in targets) or (command == "python" and (ROOT / name).is_file()), line


@pytest.mark.parametrize("line", OF_GENERATE)
def test_generate_lines_run(line, capsys):
    run(generate_command.generate, shlex.split(line)[2:])
    assert "round" in capsys.readouterr().out


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("python compare.py ")])
def test_compare_lines_parse(line):
    from compare import compare

    given = shlex.split(line)[2:]
    default = [] if "--config" in given else ["--config", str(ROOT / "configs/compare/default.yaml")]
    parser_of(compare).parse_args([*default, *given])


@pytest.mark.parametrize("code", [block for kind, block in BLOCKS if kind == "python"])
def test_python_runs(code, monkeypatch):
    monkeypatch.chdir(ROOT)
    exec(compile(code, "README.md", "exec"), {})


def test_every_policy_is_in_the_table():
    assert {name for name in POLICIES if f"`{name}`" not in README} == set()
