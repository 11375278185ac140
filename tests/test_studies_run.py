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


def test_without_its_bases_the_study_of_orders_says_which_recipe_makes_them(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run(study_command.study, ["order", f"--settings.bases={tmp_path}", f"--out={tmp_path}"], positional="name")
    assert ended.value.code == 2
    assert "`python -m train.pretrain --config configs/train/order.yaml`" in capsys.readouterr().err
