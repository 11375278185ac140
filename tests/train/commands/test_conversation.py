"""A conversation: turns are kept, a refused one is not, and it takes a model with a template."""

import io

import pytest

import generate as generate_command
import models
from decoding.calls.request import resolve
from tests.complaint import complaint
from train.commands.answering.conversation import NEW, Conversation
from train.commands.command_line import run

REQUEST = resolve("threshold", {"gen_length": 16, "threshold": 0.05})


def open_(folder, **changes) -> Conversation:
    return Conversation(models.load(folder, device="cpu"), REQUEST, seed=0, stream=io.StringIO(), **changes)


def test_turns_are_kept_until_a_new_start(instruct):
    talk = open_(instruct)
    talk.hold(["1+2\n", "\n", "3\n"])
    assert [message["role"] for message in talk.messages] == ["user", "assistant"] * 2
    assert talk.stream.getvalue().count(" rounds, ") == 2
    talk.hold([f"{NEW}\n", "3\n"])
    assert talk.messages[0]["content"] == "3"
    assert len(talk.messages) == 2


def test_a_turn_too_long_is_refused_or_older_ones_dropped(instruct):
    talk = open_(instruct)
    assert talk.reply("1," * 200).startswith("(prompt + gen_length must be at most the model's 128, got ")
    assert talk.messages == []
    talk, long = open_(instruct, cut=True), "1," * 25
    for _ in range(4):
        assert "rounds" in talk.reply(long)
    assert 2 <= len(talk.messages) < 8


def test_the_command_talks_over_standard_input(capsys, instruct, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("1+2\n3\n"))
    run(
        generate_command.generate,
        ["--chat", "--model", str(instruct), "--gen_length", "16", "--policy", "threshold", "--watch"],
    )
    printed = capsys.readouterr().out
    assert printed.count(" rounds, ") == 2
    assert printed.startswith("round  canvas: ")


def test_a_model_without_a_template_is_refused(capsys, tiny):
    with pytest.raises(SystemExit):
        run(generate_command.generate, ["--chat", "--model", str(tiny), "--policy", "threshold"])
    assert (
        capsys.readouterr().err
        == "generate.py: chat must come with a model that has a chat template, got one without\n"
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--prompt", "1"), "prompt must be left out with chat, got ['1']"),
        (("--task", "sudoku"), "task must be left out with chat, got 'sudoku'"),
        (("--prompts", "nothing.jsonl"), "prompts must be left out with chat, got 'nothing.jsonl'"),
        (("--row", "0"), "row must be left out with chat, got 0"),
        (("--run_code",), "run_code must be left out with chat, got True"),
        (("--out", "OUT"), "out must be left out with chat, got "),
        (("--samples", "4"), "samples must be left out with chat, got 4"),
        (("--batch_size", "4"), "batch_size must be left out with chat, got 4"),
        (("--json",), "json must be left out with chat, got True"),
        (("--calibrated", "c.json"), "calibrated must be left out with chat, got 'c.json'"),
    ],
)
def test_what_a_conversation_does_not_read_is_refused(capsys, tmp_path, given, told):
    given = [str(tmp_path / "o.jsonl") if one == "OUT" else one for one in given]
    assert complaint(capsys, generate_command.generate, "--chat", *given).startswith(f"generate.py: {told}")
    assert list(tmp_path.iterdir()) == []
