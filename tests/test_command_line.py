"""What a command keeps and refuses: options kept once judged, one writer a folder, text as text, signals told in a line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.plain_command import ROOT, SEEN, command, files, told
from train.commands.command_line import GOES_ON, keep_options, parser_of, run
from train.commands.interruption import Interrupted, StopGently, interruptible


def test_a_refused_call_leaves_the_record_of_a_finished_run(capsys, tmp_path):
    out = tmp_path / "run"
    run(command, ["--out", str(out), "--rate", "0.5"])
    before = files(out)
    assert b"rate: 0.5" in before["command.yaml"]
    for wrong in (["--rate", "2"], ["--rate", "many"], ["--colour", "1"], ["--config", str(tmp_path / "none.yaml")]):
        told(capsys, "--out", str(out), *wrong)
        assert files(out) == before


def test_a_refused_call_leaves_no_folder_behind(capsys, tmp_path):
    told(capsys, "--out", str(tmp_path / "new" / "deep"), "--rate", "2")
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    told(capsys, "--out", str(tmp_path / "old" / "deep"), "--rate", "2")
    assert (tmp_path / "old").is_dir()
    assert not (tmp_path / "old" / "deep").exists()


def test_options_are_kept_as_soon_as_the_command_says_that_all_is_judged(tmp_path):
    def stopped(out: str) -> None:
        """Stop."""
        assert not (Path(out) / "stopped.yaml").exists()
        keep_options()
        assert (Path(out) / "stopped.yaml").exists()
        raise Interrupted(signal.SIGINT)

    with pytest.raises(SystemExit) as ended:
        run(stopped, ["--out", str(tmp_path)])
    assert ended.value.code == 130
    assert (tmp_path / "stopped.yaml").exists()
    keep_options()  # outside a command: nothing to keep


@pytest.mark.parametrize(
    "arguments",
    [
        ["--task", "nosuch"],
        ["--arms", "nosuch"],
        ["--num_dev", "0"],
        ["--model", "nowhere/at/all"],
        ["--head", "nowhere"],
        ["--dtype", "int3"],
        ["--task", "sudoku,sudoku"],
    ],
)
def test_compare_refused_leaves_everything_as_it_was(capsys, tmp_path, arguments):
    from compare import compare

    (tmp_path / "compare.yaml").write_text("task: sudoku\n")
    with pytest.raises(SystemExit):
        run(
            compare,
            ["--out", str(tmp_path), "--num_prompts", "2", *arguments],
            default_config="configs/compare/default.yaml",
        )
    assert files(tmp_path) == {"compare.yaml": b"task: sudoku\n"}


def test_train_and_study_refused_leave_everything_as_it_was(capsys, tmp_path):
    from study import study
    from train.pretrain import pretrain

    without = "tokenizer must be a folder with its files, got 'nosuch'"
    for function, arguments, sentence in (
        (study, ["--name", "nosuch"], "name must "),
        (pretrain, ["--tokenizer", "nosuch", "--tasks", "{}"], without),
    ):
        record = tmp_path / f"{function.__name__}.yaml"
        record.write_text("name: order\n")
        assert (
            told(capsys, "--out", str(tmp_path), *arguments, function=function).partition(": ")[2].startswith(sentence)
        )
        assert record.read_text() == "name: order\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--prompt", "a", "--prompt", "b"],
        ["--prompt=a", "--prompt", "b"],
        ["--prompt", "a", "--name", "b", "--prompt=a"],
        ["--settings.a", "1", "--settings.a", "2"],
    ],
)
def test_an_option_given_twice_is_refused_by_name(capsys, tmp_path, arguments):
    sentence = told(capsys, "--out", str(tmp_path), *arguments)
    assert sentence.endswith("must be given once, got it twice")
    assert sentence.split()[1] in ("prompt", "settings.a")


def test_options_are_not_abbreviated(capsys, tmp_path):
    named = "option must be one that --help or --list settings names, got"
    assert f"{named} --promp:" in told(capsys, "--out", str(tmp_path), "--promp", "a")
    assert f"{named} --rat" in told(capsys, "--out", str(tmp_path), "--rat=0.5")


TEXTS = [
    "# not a comment",
    "~",
    "null",
    "Null",
    "&anchor",
    "*alias",
    "",
    " ",
    "a: b",
    "- a",
    "[1,",
    "{",
    '"',
    "'",
    "!!int 3",
    "%",
    "@",
    "1e3",
    "true",
    "a # b",
    "é→\u00a0",
    "😀\x7f\ufffe",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_taken_as_it_is_and_comes_back_from_the_saved_options(tmp_path, text):
    SEEN.clear()
    run(command, ["--out", str(tmp_path), "--prompt", text])
    run(command, ["--config", str(tmp_path / "command.yaml")])
    assert SEEN == [text, text]


def test_null_in_a_config_is_no_text(tmp_path):
    (tmp_path / "c.yaml").write_text("prompt: null\nname: '~'\n")
    options = parser_of(command).parse_args(["--config", str(tmp_path / "c.yaml")])
    assert (options.prompt, options.name) == (None, "~")


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


def in_settings(lines: list[str]) -> bytes:
    """A config whose settings hold these lines."""
    return ("settings:\n  {" + ",\n  ".join(lines) + "}\n").encode()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"name: a\nname: b\n", "name must be given once in a config, got it twice at line 1"),
        (b"settings:\n  a: 1\n  a: 2\n", "a must be given once in a config"),
        ("name: é\n".encode("latin-1"), "config must be text in UTF-8, got "),
        ("name: a\n".encode("utf-16"), "config must be text in UTF-8, got "),
        (b"name: [\n", "config must be YAML, got "),
        (b"settings: &s {a: *s}\n", "config must end, got an alias of itself"),
        (in_settings(BOMB.splitlines()[:5]), "config must hold at most 100000 values"),
        (in_settings(BOMB.splitlines()), "config must hold at most 100000 values"),
        (b"settings: " + b"[" * 5000 + b"]" * 5000, "config must be nested less deeply, got "),
        (b"", "config must hold options, name: value, got none in "),
        (b"- a\n", "config must hold options, name: value, got other text in "),
    ],
    ids=["twice", "twice-nested", "latin-1", "utf-16", "broken", "circle", "many", "bomb", "deep", "empty", "list"],
)
def test_a_config_is_read_whole_or_refused(capsys, tmp_path, text, sentence):
    (tmp_path / "c.yaml").write_bytes(text)
    assert told(capsys, "--out", str(tmp_path / "o"), "--config", str(tmp_path / "c.yaml")).startswith(
        f"command.py: {sentence}"
    )


def test_a_pipe_is_no_config(capsys, tmp_path):
    os.mkfifo(tmp_path / "c.yaml")
    sentence = told(capsys, "--out", str(tmp_path / "o"), "--config", str(tmp_path / "c.yaml"))
    assert sentence.startswith("command.py: config must be a file that is there, got the pipe ")


@pytest.mark.parametrize("value", ['{"a": 1, "a": 2}', "{a: 1, a: 2}"])
def test_a_key_that_an_option_holds_twice_is_refused(capsys, tmp_path, value):
    sentence = told(capsys, "--out", str(tmp_path), f"--settings={value}")
    assert sentence == "command.py: a must be given once, got it twice with settings"


def test_bytes_that_are_no_text_are_refused_by_name(capsys, tmp_path):
    for wrong in ("a\udcff", "\ud800"):
        sentence = told(capsys, "--out", str(tmp_path), "--prompt", wrong)
        assert sentence.startswith("command.py: prompt must be text in UTF-8, got '\\ud")


def test_leftovers_of_a_launcher_are_ignored_in_one_line(capsys, tmp_path, monkeypatch):
    seen = []

    def alone(out: str) -> None:
        """Look."""
        seen.append([name for name in ("SLURM_NTASKS", "RANK") if name in os.environ])

    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("RANK", "1")
    run(alone, ["--out", str(tmp_path)])
    assert seen == [[]]
    assert capsys.readouterr().err == "run by itself, so SLURM_NTASKS=4, RANK=1 of a launcher is ignored\n"
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    run(alone, ["--out", str(tmp_path)])
    assert seen == [[], ["RANK"]]


SLEEPER = (
    "import sys, time\nsys.path.insert(0, '.')\nfrom train.commands.command_line import GOES_ON, keep_options, run\n"
    "def sleeper(out: str) -> None:\n    '''Sleep.'''\n    keep_options()\n    print('ready', flush=True)\n    time.sleep(60)\n"
    "run(sleeper, ['--out', sys.argv[1]], kept=GOES_ON)\n"
)


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_is_told_in_one_line_with_what_is_kept(tmp_path, number, code, word):
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPER, str(tmp_path / "o")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert err == f"sleeper.py: {word}, {GOES_ON.format(out=tmp_path / 'o')}\n"
    assert (tmp_path / "o" / "sleeper.yaml").exists()


def test_a_gentle_stop_waits_for_the_step_and_a_second_signal_does_not():
    stop = StopGently()
    before = signal.getsignal(signal.SIGTERM)
    with interruptible(stop.handle):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            if stop.asked:
                break
            time.sleep(0.001)
        assert stop.asked
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before
    with pytest.raises(Interrupted) as stopped:
        stop.raise_if_asked()
    assert stopped.value.exit_code == 143


def test_a_terminal_of_fewer_letters_shows_the_others_by_number(tmp_path):
    code = (
        "import sys\nsys.path.insert(0, '.')\nfrom train.commands.command_line import run\n"
        "def say(name: str = 'x') -> None:\n    '''Say.'''\n    print('· é')\n    raise ValueError('name must be plain, got é')\n"
        "run(say, [])\n"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=environment)
    said = "say.py: name must be plain, got \\xe9\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "\\xb7 \\xe9\n", said)


def test_a_command_stopped_before_it_kept_anything_says_so(capsys, tmp_path):
    def early(out: str) -> None:
        """Stop."""
        raise Interrupted(signal.SIGINT)

    with pytest.raises(SystemExit) as ended:
        run(early, ["--out", str(tmp_path / "new")], kept=GOES_ON)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "early.py: interrupted, nothing is kept: start it again\n"
    assert not (tmp_path / "new").exists()
