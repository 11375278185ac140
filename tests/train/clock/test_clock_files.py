"""Results and prompts that are damaged, or of another call, are refused in one sentence that names the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.complaint import complaint
from train.clock.__main__ import clock
from train.commands.command_line import run


def rewritten(file: Path, change) -> None:
    """Change what a JSON file holds by hand, without its sum."""
    stored = json.loads(file.read_text())
    del stored["sha256"]
    change(stored)
    file.write_text(json.dumps(stored))


def test_damaged_files_are_named_in_one_sentence(tmp_path, config, capsys):
    arguments = config(arms="threshold", num_dev=2, num_prompts=2)
    run(clock, arguments)
    results, prompts = tmp_path / "out" / "countdown3" / "results.json", tmp_path / "out" / "prompts"
    (kept,) = prompts.iterdir()
    capsys.readouterr()
    for file, key in ((results, '"rounds"'), (kept, '"prompt"')):
        sound = file.read_text()
        for damaged in (sound[:-20], sound.replace("1", "2", 1), sound.replace(key, '"other"', 1), "{}"):
            file.write_text(damaged)
            assert str(file) in complaint(capsys, clock, *arguments)
        file.write_text(sound)
    rewritten(results, lambda stored: stored["clocked"].update(one=3))
    assert f"{results} must hold rows with accuracy" in complaint(capsys, clock, *arguments)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda stored: (stored.pop("asked"), stored["test"].pop()), "'test': 2, 'seed': 0}, got {"),
        (lambda stored: stored["asked"].update(seed=1), "'seed': 0}, got {"),
        (lambda stored: stored["dev"][0].update(prompt=3), "it must hold texts as prompts and answers, got 3"),
        (lambda stored: stored.update(dev=["a"]), "it must hold prompts as dev and as test, got "),
    ],
)
def test_prompts_of_another_call_are_refused(tmp_path, config, capsys, change, told):
    arguments = config(arms="threshold", num_dev=2, num_prompts=2)
    run(clock, [*arguments, "--draw"])
    (file,) = (tmp_path / "out" / "prompts").iterdir()
    rewritten(file, change)
    said = complaint(capsys, clock, *arguments)
    assert str(file) in said
    assert told in said
    assert not (tmp_path / "out" / "countdown3").exists()


def test_results_on_other_prompts_are_not_gone_on_with(tmp_path, config, capsys):
    arguments = config(arms="threshold", num_dev=2, num_prompts=2)
    run(clock, arguments)
    assert {"prompts", "judge"} <= json.loads((tmp_path / "out" / "countdown3" / "results.json").read_text())[
        "place"
    ].keys()
    (file,) = (tmp_path / "out" / "prompts").iterdir()
    rewritten(file, lambda stored: stored["dev"].reverse())
    capsys.readouterr()
    assert "out must be a folder of results with prompts '" in complaint(capsys, clock, *arguments)
