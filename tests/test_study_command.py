"""The study command: bad input is told in one sentence before torch is imported; a study writes its JSON and its picture."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import study as study_command
from decoding.studies import STUDIES
from decoding.studies.inputs import StudyInputs
from models.toys.toy import GroupDenoiser
from tests.complaint import early_complaint
from train.commands import study as study_module
from train.commands.command_line import run
from train.tasks.problems import make_problems

ROOT = Path(__file__).parents[1]


def measure(inputs: StudyInputs, *, rows: int = 3, rates: list[float] | None = None, grid: dict | None = None) -> dict:
    denoiser = inputs.counted(GroupDenoiser(1, 4))
    denoiser(torch.zeros(rows, 4, dtype=torch.long))
    draw = torch.rand(1, generator=inputs.generator(offset=3)).item()
    return {"rates": rates or [0.5], "drawn": draw, "prompts": inputs.problems("countdown3", 2).problems.test}


def draw(result: dict, figure) -> None:
    figure.add_subplot(xlabel="rate").plot(result["rates"])


@pytest.fixture
def tiny_study(monkeypatch):
    """A study named `tiny` beside the real ones."""
    module = ModuleType("tiny_study")
    module.measure, module.draw = measure, draw
    monkeypatch.setitem(sys.modules, "tiny_study", module)
    monkeypatch.setattr(study_module, "STUDIES", {**STUDIES, "tiny": "tiny_study"})


def start(*arguments: str) -> None:
    run(study_command.study, arguments, default_config="configs/study/{name}.yaml", positional="name")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("bit",), f"name must be one of {', '.join(STUDIES)}, tiny, got 'bit'"),
        (("--name", "bit"), f"name must be one of {', '.join(STUDIES)}, tiny, got 'bit'"),
        (("tiny", "--settings.rows=many"), "rows must be int, got 'many'"),
        (("tiny", "--settings.rates=[]"), "rates must hold at least one value, got none"),
        (("tiny", "--settings.grid={gamma: []}"), "grid.gamma must hold at least one value, got none"),
        (("tiny", "--settings.sizes=3"), "settings must be among grid, rates, rows, got sizes"),
        (("tiny", "--seed", "x"), "seed must be int, got 'x'"),
        (("tiny", "--model", "checkpoints/nothing"), "model must be a checkpoint folder or a hub id"),
    ],
)
def test_bad_input_is_told_in_one_sentence(capsys, tmp_path, tiny_study, arguments, sentence):
    with pytest.raises(SystemExit) as ended:
        start(*arguments, "--out", str(tmp_path))
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (2, "")
    assert printed.err.startswith(f"study.py: {sentence}")
    assert printed.err.count("\n") == 1


def test_without_matplotlib_a_study_says_what_it_lacks(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(study_module, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        start("block-hmm", "--out", str(tmp_path))
    assert "a study must have matplotlib to draw with" in capsys.readouterr().err


def test_an_unknown_name_is_judged_before_torch_is_imported(tmp_path):
    printed = early_complaint("study.py", "x", "--out", str(tmp_path), before=("torch", "matplotlib"))
    assert printed.startswith("study.py: ")


def test_a_study_writes_its_figures_with_their_origin_and_its_picture(capsys, tmp_path, tiny_study):
    start("tiny", "--settings.rows=5", "--seed", "4", "--device", "cpu", "--out", str(tmp_path))
    found = json.loads((tmp_path / "tiny.json").read_text())
    assert found.keys() >= {"study", "command", "commit", "seed", "device", "versions", "settings", "seconds"}
    assert (found["study"], found["seed"], found["sequence_forwards"]) == ("tiny", 4, 5)
    assert found["settings"] == {"rows": 5, "rates": None, "grid": None}
    assert (found["rates"], len(found["prompts"])) == ([0.5], 2)
    assert (tmp_path / "tiny.png").read_bytes().startswith(b"\x89PNG")
    assert {file.name for file in tmp_path.iterdir()} == {"tiny.json", "tiny.png", "study.yaml"}
    assert "tiny.png: 5 sequence forwards" in capsys.readouterr().out


def test_a_picture_that_fails_loses_no_figures(tmp_path, tiny_study, monkeypatch):
    monkeypatch.setattr(sys.modules["tiny_study"], "draw", lambda result, figure: result["nosuch"])
    with pytest.raises(KeyError, match="nosuch"):
        start("tiny", "--device", "cpu", "--out", str(tmp_path))
    assert json.loads((tmp_path / "tiny.json").read_text())["rates"] == [0.5]


@pytest.mark.parametrize(("arguments", "seen"), [((), False), (("--head", "checkpoints/reason-7m-head"), True)])
def test_prompts_that_a_named_head_may_know_are_kept_apart(monkeypatch, tmp_path, tiny_study, arguments, seen):
    seen_by = []
    monkeypatch.setattr(
        study_module, "make_problems", lambda *some, **how: seen_by.append(how["seen"]) or make_problems(*some, **how)
    )
    start("tiny", *arguments, "--device", "cpu", "--out", str(tmp_path))
    assert seen_by == [seen]


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_has_both_functions_and_a_default_config(name):
    assert (ROOT / "configs" / "study" / f"{name}.yaml").is_file()
    module = __import__(STUDIES[name], fromlist=["measure"])
    defaults = study_module.read_settings(module.measure, {})
    assert defaults
    assert callable(module.draw)


@pytest.mark.parametrize("config", sorted((ROOT / "configs" / "study").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_fits_its_study(config):
    import yaml

    held = yaml.safe_load(config.read_text())
    assert config.stem in (held["name"], f"{held['name']}-full")
    module = __import__(STUDIES[held["name"]], fromlist=["measure"])
    study_module.read_settings(module.measure, held.get("settings") or {})


def test_folders_that_ship_are_found_from_anywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    given = {"bases": "checkpoints/order", "results": "checkpoints/not-there", "task": "sudoku", "prompts": 3}
    assert study_module.with_shipped(given, {}) == {**given, "bases": str(ROOT / "checkpoints/order")}
    assert (
        study_module.with_shipped(given, {"bases": "checkpoints/order"}) == given
    )  # what is named lies where it is named


def test_a_bench_counts_rows_and_tells_its_streams_apart():
    inputs = StudyInputs("", None, None, 1, make_problems=study_module.study_problems, fit=study_module.fit_features)
    denoiser = inputs.counted(GroupDenoiser(1, 4))
    denoiser(tokens=torch.zeros(2, 4, dtype=torch.long))
    denoiser(torch.zeros(3, 4, dtype=torch.long))
    assert inputs.cost.sequence_forwards == 5
    draws = [torch.rand(4, generator=inputs.generator(offset=offset)) for offset in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert isinstance(denoiser, nn.Module)
    with pytest.raises(ValueError, match="head must be a folder"):
        inputs.denoiser(head=True)
