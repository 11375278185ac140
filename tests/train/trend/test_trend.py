"""The trend over sizes in miniature: a base from scratch to its stored result, and the study that reads these."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import yaml

import models
import train.trend.measuring
from decoding.studies.inputs import StudyInputs
from decoding.studies.trend import draw, fit_line, measure
from tests.complaint import complaint
from train.commands.command_line import run
from train.trend.__main__ import trend

NOTHING = StudyInputs("", None, None, 0, make_problems=lambda *_: None, fit=lambda *_: None)  # type: ignore[arg-type]

pytestmark = pytest.mark.filterwarnings("ignore:.*(LeafSpec|num_workers|IterableDataset|number of training batches)")

BASE = {
    "tokenizer": "checkpoints/reason-7m",
    "max_steps": 4,
    "validate_minutes": 10,
    "points": [1.0],
    "dev_rows": 4,
    "shape": {"layers": 4, "width": 32, "heads": 2, "mlp_width": 48, "max_positions": 256},
    "fit": {"tokens_per_step": 384},
    "tasks": {"countdown3": {"share": 1.0, "rows": 32, "pad_to": 48}},
}
THRESHOLD = {"name": "threshold", "kind": "headless", "policy": "threshold", "dial": "threshold", "values": [0.9, 0.1]}
LEARNED = {"name": "learned", "kind": "learned", "policy": "learned", "dial": "risk_bound", "values": [0.1, 0.9]}
MEASURED = {
    "name": "tiny",
    "tasks": {"countdown3": {"prompts": 6, "dev_prompts": 3}},
    "beam": {"threshold": 0.9, "branches": 2},
    "drivers": {"threshold": {"policy": "threshold", "threshold": 0.1}},
    "labelling": {"states_per_prompt": 2, "labelled": 1, "branches": 3, "strata": 1, "finished": 1, "dev_branches": 3},
    "fitting": {"variants": ["lora"], "epochs": 1, "batch_size": 4, "rank": 2, "width": 16},
    "cascade": {"steps": 2, "prompts": 8, "batch_size": 4, "rank": 2, "blocks": 1, "positions": 1, "parts": [0.3]},
    "catalogue": [
        {"name": "sequential", "kind": "headless", "policy": "sequential"},
        THRESHOLD,
        {**LEARNED, "settings": {"rule": "sum", "looks": 1}},
    ],
    "timed": {"headless": ["threshold"], "learned": ["learned"]},
    "num_prompts": 3,
    "num_dev": 2,
    "timed_prompts": 1,
    "batch_size": 4,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trend")
    (folder / "base.yaml").write_text(yaml.safe_dump({**BASE, "out": "unused", "cache": str(folder / "rows")}))
    places = {"base": folder / "base.yaml", "out": folder / "run", "results": folder / "results"}
    places["prompts"] = folder / "prompts"
    (folder / "measured.yaml").write_text(yaml.safe_dump(MEASURED | {name: str(p) for name, p in places.items()}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.trend.measuring, "REPEATS", 1)
        for more in (["--stage=prompts"], []):
            run(trend, ["--config", str(folder / "measured.yaml"), *more])
    return folder


def test_a_base_goes_from_rows_to_a_stored_result(stored):
    files = sorted((stored / "results").iterdir())
    assert [file.name for file in files] == ["tiny-1.json"]
    found = json.loads(files[0].read_text())
    assert (found["base"], found["point"], found["share_of_training"], found["steps"]) == ("tiny", 1, 1.0, 4)
    assert (found["layers"], found["blocks_of_a_look"], found["cascade_steps"]) == (4, 1, 2)
    one = found["tasks"]["countdown3"]
    assert one["reference"]["n"] == 3
    assert one["best"].keys() == {"headless", "learned"}
    cells = [(cell["arm"], cell["dial"]) for cell in one["cells"]]
    assert sorted(cells, key=str) == sorted(
        [("sequential", None), ("threshold", 0.9), ("threshold", 0.1), ("learned", 0.1), ("learned", 0.9)], key=str
    )
    assert {cell["n"] for cell in one["cells"]} == {3}
    assert one["look_ms"].keys() == {"plain", "head", "look", "share_of_a_look"}
    assert found["look_by_count"]["countdown3"]["uncached"]["operations"] > 0
    assert found["engine"] is None


def test_a_call_that_is_repeated_does_nothing_again(stored, monkeypatch, caplog):
    caplog.set_level("INFO")
    before = {file: file.stat().st_mtime_ns for file in stored.rglob("*.json")}
    monkeypatch.setattr("train.trend.stages.train_base", lambda *_: pytest.fail("a base was trained"))
    run(trend, ["--config", str(stored / "measured.yaml")])
    file = stored / "results" / "tiny-1.json"
    assert f"point 1 is not measured again: {file} is there" in caplog.messages
    assert {file: file.stat().st_mtime_ns for file in before} == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--num_prompts=4"], "num_prompts must be 3 as in FILE, got 4: choose other --results"),
        (["--num_dev=3"], "num_dev must be 2 as in FILE, got 3: choose other --results"),
        (["--cascade.blocks=2"], "cascade must be "),
        (["--base=BASE"], "base.max_steps must be 4 as in FILE, got 5: choose other --results"),
        (["--results=OLD"], "OLD/tiny-1.json must hold the settings of its measurement, got none: choose other --res"),
        (["--point=2"], "point must lie in [1, 1], got 2"),
    ],
)
def test_a_stored_result_of_other_settings_is_refused(stored, tmp_path, capsys, monkeypatch, arguments, sentence):
    monkeypatch.setattr("train.trend.stages.train_base", lambda *_: pytest.fail("a base was trained"))
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({**BASE, "max_steps": 5}))
    (tmp_path / "tiny-1.json").write_text("{}")
    names = {"BASE": str(tmp_path / "base.yaml"), "OLD": str(tmp_path)}
    names["FILE"] = str(stored / "results" / "tiny-1.json")
    for name, place in names.items():
        arguments, sentence = [one.replace(name, place) for one in arguments], sentence.replace(name, place)
    said = complaint(capsys, trend, "--config", str(stored / "measured.yaml"), *arguments)
    assert said.startswith(f"trend.py: {sentence}")


def test_results_lie_in_out_where_no_folder_is_named(stored, tmp_path, monkeypatch):
    monkeypatch.setattr("train.trend.stages.train_base", lambda *_: pytest.fail("a base was trained"))
    shutil.copytree(stored / "results", tmp_path / "run" / "results")
    how = yaml.safe_load((stored / "measured.yaml").read_text())
    del how["results"]
    (tmp_path / "measured.yaml").write_text(yaml.safe_dump({**how, "out": str(tmp_path / "run")}))
    run(trend, ["--config", str(tmp_path / "measured.yaml")])


@pytest.mark.parametrize("stage", ["all", "decoding"])
def test_prompts_that_are_not_there_are_refused_before_a_base_is_trained(capsys, tmp_path, monkeypatch, stage):
    monkeypatch.setattr("train.trend.stages.train_base", lambda *_: pytest.fail("a base was trained"))
    base = tmp_path / "base.yaml"
    base.write_text(yaml.safe_dump(BASE))
    how = {**MEASURED, "base": str(base), "out": str(tmp_path / "run"), "stage": stage}
    how["tasks"] = {"countdown3": {"prompts_file": "no.jsonl"}}
    file = tmp_path / "measured.yaml"
    file.write_text(yaml.safe_dump(how))
    said = complaint(capsys, trend, "--config", str(file))
    assert said == "trend.py: prompts_file of task countdown3 must be a file, got 'no.jsonl'"


def test_a_result_says_what_the_engine_did(stored, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "load", partial(models.load, engine="graphs"))
    run(trend, ["--config", str(stored / "measured.yaml"), "--results", str(tmp_path)])
    found = json.loads((tmp_path / "tiny-1.json").read_text())
    assert found["engine"] == {"fallbacks": 0, "graphs": 0, "capture_seconds": 0.0}


def test_arms_are_compared_and_clocked_in_the_format_asked_for(stored, tmp_path):
    shutil.copytree(stored / "run" / "base", tmp_path / "run" / "base")
    shutil.copytree(stored / "run" / "point-1" / "head", tmp_path / "run" / "point-1" / "head")
    places = ["--out", str(tmp_path / "run"), "--results", str(tmp_path / "results")]
    run(trend, ["--config", str(stored / "measured.yaml"), "--dtype=bfloat16", *places])
    assert json.loads((stored / "results" / "tiny-1.json").read_text())["dtype"] == "float32"
    assert json.loads((tmp_path / "results" / "tiny-1.json").read_text())["dtype"] == "bfloat16"
    ledger = (tmp_path / "run" / "point-1" / "compare" / "countdown3.jsonl").read_text().splitlines()
    assert json.loads(ledger[0])["dtype"] == "torch.bfloat16"


def unit(base: str, point: int, parameters: float, layers: int, share: float) -> dict:
    """A stored result in which the learned arm's share of the rounds is `share`."""
    rounds = {"headless": 10.0, "learned": 10 * share, "verified": None}
    best = {kind: value and {"rounds_at_reference": {"estimate": value}} for kind, value in rounds.items()}
    task = {"reference": {"n": 500, "accuracy": {"estimate": 0.9}}, "best": best, "calibration_error": 0.01}
    task |= {"seconds_a_prompt": {"headless": 1.0, "learned": 0.8}, "headroom": {"oracle_gain": {"estimate": 2.0}}}
    task |= {"explained": {"estimate": 0.5}, "look_ms": {"share_of_a_look": 0.6}}
    count = {"t": {"uncached": {"operations": 12.0}}}
    names = {"base": base, "point": point, "parameters": parameters, "layers": layers, "share_of_training": point / 2}
    return {**names, "look_by_count": count, "tasks": {"t": task}}


def test_the_study_reads_a_straight_trend_off_at_the_target(tmp_path):
    from matplotlib.figure import Figure

    for number, power in enumerate((6, 7, 8)):
        for point in (1, 2):
            stored = unit(f"b{number}", point, 10.0**power, 2 ** (number + 2), 0.9 - 0.1 * number)
            (tmp_path / f"b{number}-{point}.json").write_text(json.dumps(stored))
    found = measure(NOTHING, results=str(tmp_path), parameters=1e10, layers=32)
    assert found["cut"] == []
    by = {(line["figure"], line["axis"]): line for line in found["lines"]}
    assert by["rounds_learned", "parameters"]["foretold"]["estimate"] == pytest.approx(0.5)
    assert by["rounds_learned", "layers"]["foretold"] == pytest.approx({"estimate": 0.6, "low": 0.6, "high": 0.6})
    assert by["look_operations", "layers"]["foretold"]["estimate"] == pytest.approx(0.12)
    assert not any(name == "rounds_verified" for name, _ in by)
    figure = Figure()
    draw(found, figure)
    assert len(figure.axes) == 2 * 8


def test_what_a_base_has_not_learned_gives_no_rounds_and_does_not_cost_the_line_its_other_tasks(tmp_path):
    for number, power in enumerate((6, 7, 8)):
        stored = unit(f"b{number}", 2, 10.0**power, 2 ** (number + 2), 0.5)
        stored["tasks"]["u"] = unit("", 2, 1.0, 1, 0.7)["tasks"]["t"]
        stored["look_by_count"]["u"] = stored["look_by_count"]["t"]
        (tmp_path / f"b{number}-2.json").write_text(json.dumps(stored))
    early = unit("b2", 1, 10.0**8, 16, 0.1)
    early["tasks"]["t"]["reference"]["accuracy"]["estimate"] = 0.09
    (tmp_path / "b2-1.json").write_text(json.dumps(early))
    found = measure(NOTHING, results=str(tmp_path), parameters=1e10, layers=32)
    by = {(line["figure"], line["axis"]): line for line in found["lines"]}
    rounds, headroom = by["rounds_learned", "parameters"], by["headroom", "parameters"]
    assert (rounds["units"], rounds["tasks"], rounds["foretold"]["estimate"]) == (3, ["t", "u"], pytest.approx(0.6))
    assert (headroom["units"], headroom["tasks"]) == (3, ["t", "u"])
    [row] = [row for row in found["rows"] if row["point"] == 1]
    assert (row["rounds_headless"], row["rounds_learned"], row["seconds_learned"]) == (None, None, None)


def test_a_line_says_how_unsure_it_is():
    from numpy import array

    wide = fit_line(array([0.0, 1.0, 2.0]), array([0.0, 1.2, 1.9]), 4.0)
    near = fit_line(array([0.0, 1.0, 2.0]), array([0.0, 1.2, 1.9]), 1.0)
    assert wide["foretold"]["high"] - wide["foretold"]["low"] > near["foretold"]["high"] - near["foretold"]["low"] > 0
    assert fit_line(array([1.0, 1.0, 1.0]), array([0.0, 1.0, 2.0]), 4.0) is None


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"results must be a folder with what train.trend stores, got"):
        measure(NOTHING, results=str(tmp_path))
