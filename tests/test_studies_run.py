"""The studies of the shipped base, run and drawn at the smallest size there is."""

import json

import pytest

import study as study_command
from train.commands.command_line import run

SMALLEST = {
    "bits": ["--settings.tasks=[countdown3]", "--settings.factors=[1.0]", "--settings.exact_sequences=0"],
    "ablation": ["--settings.tasks=[countdown3]", "--settings.sweeps={}"],
    "cascades": ["--settings.tasks=[countdown3]", "--settings.arms=[beam]"],
    "free-lunch": [
        *("--settings.tasks=[countdown3]", "--settings.branches=[1, 2]", "--settings.lengths=[32]"),
        *("--settings.rows=[1]", "--settings.repeats=1"),
    ],
}


@pytest.mark.parametrize("name", SMALLEST)
def test_a_study_runs_and_is_drawn(name, tmp_path, capsys):
    arguments = [name, "--device=cpu", f"--out={tmp_path}", "--settings.prompts=1", *SMALLEST[name]]
    run(study_command.study, arguments, default_config="configs/study/{name}.yaml", positional="name")
    found = json.loads((tmp_path / f"{name}.json").read_text())
    assert found["sequence_forwards"] > 0
    assert any("prompts a task" in sentence for sentence in found["cut"])
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("name", "folder", "recipe"),
    [
        ("order", "bases", "python -m train.pretrain --config configs/train/order.yaml"),
        ("limits", "convolutional", "python -m train.convolutional --config configs/train/convolutional.yaml"),
    ],
)
def test_without_its_folder_a_study_says_which_recipe_makes_it(name, folder, recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("decoding.studies.limits.study.fewest", lambda *given: pytest.fail("measured before"))
    with pytest.raises(SystemExit) as ended:
        run(study_command.study, [name, f"--settings.{folder}={tmp_path}", f"--out={tmp_path}"], positional="name")
    assert ended.value.code == 2
    assert f"{folder} must be a folder " in (said := capsys.readouterr().err)
    assert f"`{recipe}`" in said
