"""Whatever the README and its pages say can be run runs."""

import importlib
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

import generate as generate_command
from decoding.names import POLICIES
from train.commands import command_line
from train.commands.command_line import run
from train.commands.console import FILES, MODULES, main
from train.tasks import get

CONSOLE = (*FILES, *MODULES)
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted((ROOT / "docs").glob("*.md"))
MOST_WORDS = 1200
PICTURE_LIMIT = 60_000  # bytes


def blocks_of(text: str) -> list[tuple[str, str]]:
    """(language, content) of every block of code."""
    return re.findall(r"^```(\w+)\n(.*?)^```", text, re.M | re.S)


def lines_of(text: str) -> list[str]:
    """The commands of all shell blocks, without comments and without the folder of the environment."""
    shell = "".join(block for kind, block in blocks_of(text) if kind == "sh")
    lines = [line.partition(" #")[0].strip() for line in shell.splitlines()]
    lines = [line.removeprefix(".venv/bin/") for line in lines if line and not line.startswith("#")]
    return [re.sub(r"^torchrun --nproc-per-node \d+ ", "python ", line) for line in lines]


LINES = lines_of(README)
ALL_LINES = [*LINES, *(line for page in PAGES for line in lines_of(page.read_text(encoding="utf-8")))]
OF_GENERATE = [line for line in LINES if line.startswith("python generate.py ")]
OTHERS = ("make ", "pip ", "fewer-rounds lm-eval ")  # the last is parsed by the harness
PARSED = [line for line in dict.fromkeys(ALL_LINES) if not line.startswith(OTHERS)]


def test_every_line_is_of_a_kind_that_is_tested():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    others = [line for line in ALL_LINES if line not in OF_GENERATE]
    for line in others:
        command, name, *rest = line.split()
        if command == "python" and name == "-m":
            assert rest[0].startswith("train."), line
            place = f"{rest[0]}.__main__" if (ROOT / rest[0].replace(".", "/")).is_dir() else rest[0]
            assert callable(importlib.import_module(place).__dict__[rest[0].rpartition(".")[2]]), line
        else:
            ours = (command == "make" and name in targets) or (command == "python" and (ROOT / name).is_file())
            assert (
                ours or line == 'pip install "fewer-rounds[eval]"' or (command == "fewer-rounds" and name in CONSOLE)
            ), line


def test_one_command_goes_from_a_clone_to_an_answer():
    """`make demo` installs what is missing and runs one of the README's own lines."""
    recipe = re.search(r"^demo: \$\(READY\)\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    assert recipe is not None
    (line,) = recipe[1].strip().splitlines()
    assert line.replace("$(BIN)/", "") in OF_GENERATE


def comment_of(line: str) -> str:
    """The comment that the README puts behind a command."""
    (comment,) = re.findall(rf"^\.venv/bin/{re.escape(line)} +# (.*)$", README, re.M)
    return comment


@pytest.mark.parametrize("line", OF_GENERATE)
def test_generate_lines_run_and_cost_what_stands_behind_them(line, capsys):
    run(generate_command.generate, shlex.split(line)[2:])
    assert comment_of(line) in capsys.readouterr().out


def parsed(line: str, monkeypatch) -> list[object]:
    """What the parser of a line's command makes of it, with the command itself left out."""
    made: list[object] = []

    def run_no_further(function, *, default_config=None, positional=None, **how):
        told = {"default_config": default_config, "positional": positional}
        made.append(command_line._parse(function, sys.argv[1:], **told)[1])

    first, *words = shlex.split(line)
    name = words.pop(0)
    if name == "-m":
        name = words.pop(0)
    monkeypatch.setattr(command_line, "run", run_no_further)
    monkeypatch.setattr(sys, "argv", [name, *words])
    # runpy would keep code with shape checks for every later process
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    if first == "fewer-rounds":
        main([name, *words])
    elif (ROOT / name).is_file():
        runpy.run_path(str(ROOT / name), run_name="__main__")
    else:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    return made


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
@pytest.mark.parametrize("line", PARSED)
def test_every_option_of_every_line_is_one_that_the_command_knows(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert len(parsed(line, monkeypatch)) == 1


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_a_line_with_an_unknown_option_would_be_seen(monkeypatch):
    with pytest.raises(ValueError, match="option must be one that"):
        parsed("python -m train.clock --tusk sudoku", monkeypatch)


@pytest.mark.parametrize("code", [block for kind, block in blocks_of(README) if kind == "python"])
def test_python_runs(code, monkeypatch):
    monkeypatch.chdir(ROOT)
    exec(compile(code, "README.md", "exec"), {})


def test_the_file_of_sudokus_is_made_as_a_page_says_and_read_by_both_tasks(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "real-checkpoints.md").read_text(encoding="utf-8")
    (code,) = [block for kind, block in blocks_of(page) if kind == "python" and "sudoku" in block]
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace("12_000", "2").replace("1_000", "1"), "real-checkpoints.md", "exec"), {})
    (file,) = tmp_path.rglob("*.gz")
    assert str(file.relative_to(tmp_path)) in (ROOT / "configs" / "train" / "cascade.yaml").read_text()
    for name in ("sudoku", "sudoku-hard"):
        assert [get(name).split_of(one.prompt) for one in get(name).read(file)] == ["train", "train", "dev"]


def test_every_policy_that_a_page_names_is_listed_and_the_page_says_by_what():
    page = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")
    families = "".join(re.findall(r"^\| .* \| (.*) \|$", page.partition("## A policy of one's own")[0], re.M))
    names = set(re.findall(r"`([a-z-]+)`", families)) - {"steps"}
    assert len(names) > 20
    assert names <= POLICIES.keys()
    assert "\npython generate.py --list policies " in page


def test_the_readme_is_short_and_its_links_lead_somewhere():
    assert len(README.split()) < MOST_WORDS
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        links = re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text(encoding="utf-8"))
        assert [link for link in links if not (page.parent / link).exists()] == [], page.name


def test_the_picture_is_what_its_command_draws_and_small(tmp_path):
    (line,) = [line for line in LINES if line.startswith("python -m train.overview ")]
    overview = importlib.import_module("train.overview").overview
    given = shlex.split(line)[3:]
    picture = Path(given[given.index("--picture") + 1])
    assert f"]({picture})" in README
    assert (ROOT / picture).stat().st_size < PICTURE_LIMIT
    run(overview, [*given[: given.index("--picture")], "--picture", str(tmp_path / "again.png")])
    assert (tmp_path / "again.png").read_bytes().startswith(b"\x89PNG")
