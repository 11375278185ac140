"""A command in a user's shell: its complaints begin with what was typed, and `| head` ends it without a word."""

import os
import subprocess
import sys
from typing import Literal

import pytest

from tests.plain_command import ROOT, told
from train.commands.command_line import READER_LEFT, parser_of, typed_as
from train.pretrain import pretrain

SAYS = """
import sys
sys.path.insert(0, ".")
from train.commands.command_line import run

def say(letters: int = 1) -> None:
    \"\"\"Say.\"\"\"
    sys.stdin.read()
    sys.stdout.write("x" * letters)

run(say)
"""


@pytest.mark.parametrize("letters", [10, 1_000_000])  # the first are written at the end alone
def test_a_reader_that_leaves_ends_the_command_without_a_word(letters):
    how = {**dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE), "cwd": ROOT}
    how["env"] = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen([sys.executable, "-c", SAYS, "--letters", str(letters)], **how) as started:
        started.stdout.close()
        started.stdin.close()
        assert started.stderr.read() == b""
    assert started.returncode == READER_LEFT


def test_complaints_begin_with_what_was_typed(capsys):
    with typed_as("fewer-rounds profile"):
        assert told(capsys, "--rate", "2").startswith("fewer-rounds profile: rate must be at most 1")
    assert told(capsys, "--rate", "2").startswith("command.py: rate must be at most 1")


def test_a_value_that_is_none_of_a_few_is_answered_with_them_and_the_nearest(capsys):
    def choose(kind: Literal["policies", "tasks"] | None = None) -> None:
        """Choose."""

    said = told(capsys, "--kind", "polices", function=choose)
    assert said == "choose.py: kind must be one of policies, tasks, got 'polices': did you mean policies?"


def test_a_choice_is_told_with_its_values(capsys, tmp_path):
    choice = told(capsys, "--out", str(tmp_path), "--compile", "x", function=pretrain)
    assert choice.endswith("compile must be one of off, static, dynamic, got 'x'")


def test_a_seed_that_not_every_generator_takes_is_refused_wherever_it_stands(capsys, tmp_path):
    needed = ("--out", str(tmp_path), "--tasks", "{}", "--tokenizer", "none")
    said = told(capsys, *needed, "--fit.seed", "-1", function=pretrain)
    assert said.endswith("fit.seed must be at least 0, got -1")
    helps = {action.dest: action.help for action in parser_of(pretrain)._actions}
    assert helps["fit.seed"].endswith("from 0 to 4294967295.")
