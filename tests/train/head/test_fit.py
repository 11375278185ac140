"""The main head_run in miniature: from traces to heads, metrics and a table, twice; what a head learns; what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import models
import models.checkpoints.manifest
import train.commands.train
import train.head.estimate
import train.traces.collection
from decoding import generate
from decoding.policies.ete import BeamETE
from decoding.policies.quota import Sequential
from decoding.traces.labelling import Labelling
from decoding.traces.trace import load_table
from models.heads.scoring_head import load_head, save_head
from tests.train.head.small_run import ROOT, SMALL, job_of, written
from train.commands.command_line import parser_of, run
from train.commands.train import run_train
from train.head.fit import taps_of
from train.head.settings import Fitting, TaskRun
from train.head.stages import fitted
from train.tasks import get
from train.traces.collection import collect
from train.traces.prompts import prompts_of

CONFIG = ROOT / "configs/train/head.yaml"
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(LeafSpec|num_workers|enable_nested_tensor|number of training batches)"
)


def start(command, base: Path, folder: Path) -> None:
    arguments = ["--config", written(folder), "--model", str(base), "--out", str(folder / "run"), "--device", "cpu"]
    run(command, arguments)


@pytest.fixture(scope="module")
def finished(command, base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    start(command, base, folder)
    return folder


def test_a_run_leaves_everything_that_it_promises(finished):
    out = finished / "run"
    promised = {
        "adapter_config.json",
        "adapter_model.safetensors",
        "head.safetensors",
        "train.yaml",
        "metrics.json",
        "comparison.json",
    }
    assert promised <= {file.name for file in out.iterdir()}
    assert {f.name for f in (out / "variants").iterdir()} == {
        "features-0",
        "shuffled-0",
    }  # a comparison runs the control
    assert {f.name for f in (out / "variants" / "features-0").iterdir()} == {"head.safetensors", "checksums.json"}
    for task in SMALL["tasks"]:
        assert {f.name for f in (out / "traces" / task).iterdir()} == {
            "header.json",
            "part-train-00000.parquet",
            "part-dev-00000.parquet",
        }
    with (out / "logs" / "lora-0" / "metrics.csv").open() as lines:
        assert {"held/loss"} <= set(next(csv.reader(lines)))
    assert not list(out.rglob(".*.aside"))


def test_metrics_hold_every_variant_on_every_task_and_where_they_come_from(finished, base):
    found = json.loads((finished / "run" / "metrics.json").read_text())
    assert found["variants"].keys() == {"lora", "features", "shuffled"}
    for (of_seed,) in found["variants"].values():
        assert of_seed.keys() == {"multiplication", "countdown3"}
        assert of_seed["multiplication"]["choice"]["states"] > 0
        assert of_seed["multiplication"]["choice"]["regret"]["estimate"] >= 0
    denoiser = models.load(base, device="cpu")
    rows = [r for task in SMALL["tasks"] for r in load_table(finished / "run" / "traces" / task, denoiser)]
    prompts = {
        name: {r["prompt_id"] for r in rows if (r["task"], r["split"]) == (name, "train")} for name in SMALL["tasks"]
    }
    held = {name: {max(ids)} if len(ids) > 1 else set() for name, ids in prompts.items()}
    fitted = [r for r in rows if r["split"] == "train" and r["prompt_id"] not in held[r["task"]]]
    assert found["train_states"] == len(fitted) > 0
    assert found["environment"].keys() == {"command", "commit", "seed", "device", "versions"}
    assert {r["driver"] for r in rows} <= {"ete", "threshold", "beam"}
    own = {name: run["block_length"] for name, run in SMALL["tasks"].items()}
    assert all(r["block_length"] == (8 if r["driver"] == "ete" else own[r["task"]]) for r in rows)
    assert {r["block_length"] for r in rows if r["task"] == "multiplication"} == {8, 16}


def test_the_comparison_ran_the_head_that_was_saved(finished, base):
    rows = json.loads((finished / "run" / "comparison.json").read_text())["results"]
    assert {(r["task"], r["arm"], r["split"]): r["n"] for r in rows} == {
        (task, arm, split): n
        for task in SMALL["tasks"]
        for arm in ("sequential", "learned")
        for split, n in (("dev", 2), ("test", 4))
    }
    denoiser = models.load(base, device="cpu", head=finished / "run")
    assert denoiser.head.config.variant == "lora"
    assert denoiser.head.config.base == denoiser.fingerprint()
    prompt = next(get("countdown3").generate("test", seed=0)).prompt
    made = generate(denoiser, prompt, "learned", risk_bound=0.3, gen_length=24, block_length=8)
    assert (made.sequence_forwards == made.rounds).all()


def test_a_second_call_goes_on_without_collecting_again(finished, command, base, monkeypatch, capsys):
    out = finished / "run"
    kept = [*out.rglob("*.parquet"), out / "head.safetensors", out / "adapter_model.safetensors", *out.glob("*.jsonl")]
    before = {file: file.read_bytes() for file in kept}
    assert len(before) == 4 + 2 + 2

    def nothing_new(*_: Any, **__: Any) -> None:
        raise AssertionError("collected again")

    monkeypatch.setattr(train.traces.collection, "visit", nothing_new)
    start(command, base, finished)
    assert {file: file.read_bytes() for file in kept} == before
    assert capsys.readouterr().out.startswith("## multiplication, 4 test prompts")


def test_a_finished_fit_is_known_by_its_weights(finished, base, tmp_path, monkeypatch):
    """A later fit that was killed has left others, here in a save that was whole but not yet moved."""
    out = tmp_path / "run"
    shutil.copytree(finished / "run", out, ignore=shutil.ignore_patterns("traces", "logs"))
    name, denoiser = json.loads((out / "fitted.json").read_text())["asked"], models.load(base, device="cpu")
    save_head(fitted(out, name, denoiser), out)  # as the fit of a cascade saves it again
    assert fitted(out, name, denoiser) is not None
    assert fitted(out, "another", denoiser) is None
    with monkeypatch.context() as killed:
        killed.setattr(models.checkpoints.manifest, "settle", lambda folder: None)
        save_head(load_head(out / "variants" / "features-0", denoiser), out)
    assert fitted(out, name, denoiser) is None


def test_a_head_may_lead_through_states_of_its_own(base, tmp_path):
    relabel = {"own": {"policy": "learned", "risk_bound": 0.2}, "parity": {"policy": "learned-parity", "gamma": 0.9}}
    assert run_train(job_of(base, tmp_path, relabel=relabel)) == "no arms to compare"
    rows = load_table(tmp_path / "traces-own" / "countdown3", models.load(base, device="cpu"))
    assert set(rows["driver"]) == {"own", "parity"}
    drivers = json.loads((tmp_path / "traces-own" / "countdown3" / "header.json").read_text())["drivers"]
    assert "risk_bound=0.2" in drivers["own"]
    assert (tmp_path / "first" / "head.safetensors").is_file()
    found = json.loads((tmp_path / "metrics.json").read_text())
    first = json.loads((tmp_path / "first" / "metrics.json").read_text())
    assert found["train_states"] > first["train_states"] > 0


def test_the_config_that_ships_fits_a_head_and_a_control(command):
    parser = parser_of(command)
    options = parser.instantiate(parser.parse_args(["--config", str(CONFIG)]))
    assert options.fitting.variants[0] == "lora"
    assert options.fitting.variants[-1] == "shuffled"
    assert {arm.name for arm in options.catalogue} >= {
        "sequential",
        "ete",
        "learned",
        "learned-parity",
        "random-parity",
    }


def test_prompts_of_a_file_are_those_of_the_split(tmp_path):
    task = get("multiplication")
    prompts = [e.prompt for _, e in zip(range(200), task.generate("train", seed=1), strict=False)]
    prompts += [e.prompt for _, e in zip(range(3), task.generate("dev", seed=1), strict=False)]
    file = tmp_path / "mine.txt"
    file.write_text("".join(f"{p}||\n" for p in prompts))
    found = prompts_of(task, TaskRun(prompts_file=str(file)), "dev", 3, seed=0)
    assert [e.prompt for e in found] == prompts[-3:]
    with pytest.raises(ValueError, match=r"mine.txt must hold 4 prompts of the dev split, got 3$"):
        prompts_of(task, TaskRun(prompts_file=str(file)), "dev", 4, seed=0)


def test_only_heads_that_read_hidden_states_ask_for_taps(base):
    denoiser = models.load(base, device="cpu")
    assert taps_of(denoiser, Fitting(variants=("linear", "features"))) == ()
    assert taps_of(denoiser, Fitting(variants=("linear", "hidden"))) == (1,)
    assert taps_of(denoiser, Fitting(variants=("lora",), blocks=2)) == (0, 1)


def test_tasks_are_collected_side_by_side(base, tmp_path):
    denoiser, progress = models.load(base, device="cpu"), []
    options = {
        "beam": BeamETE(branches=2),
        "drivers": {"one": Sequential()},
        "labelling": Labelling(finished=0),
        "batch_size": 2,
        "seed": 0,
    }
    runs = {"countdown3": TaskRun(1, 1), "lists": TaskRun(1, 1, block_length=16, labelling=Labelling(labelled=0))}
    collect(denoiser, runs, tmp_path, progress=progress.append, **options)
    assert progress == [1, 1, 1, 1]
    assert json.loads((tmp_path / "lists" / "header.json").read_text())["block_length"] == 16
    assert len(load_table(tmp_path / "lists", denoiser)) == 0
    assert len(load_table(tmp_path / "countdown3", denoiser)) == 2


def test_tasks_left_out_are_not_seen_and_are_recorded(command, base, tmp_path):
    arguments = ["--config", written(tmp_path, catalogue=[]), "--model", str(base), "--device", "cpu"]
    run(command, [*arguments, "--leave_out", "multiplication", "--out", str(tmp_path / "run")])
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (found["tasks"], found["left_out"]) == (["countdown3"], ["multiplication"])
    assert found["variants"]["lora"][0].keys() == {"countdown3"}
    assert not (tmp_path / "run" / "traces" / "multiplication").exists()
    assert yaml.safe_load((tmp_path / "run" / "train.yaml").read_text())["leave_out"] == "multiplication"
