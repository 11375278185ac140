"""The main head_run in miniature: from traces to heads, metrics and a table, twice; what a head learns; what is refused."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import models
import train.commands.train
import train.head.estimate
import train.traces.collection
from decoding import generate
from decoding.comparison.arms import Arm
from decoding.policies.ete import BeamETE
from decoding.policies.quota import Sequential
from decoding.policies.threshold import Threshold
from decoding.traces.labelling import Labelling
from decoding.traces.trace import load_table
from models.heads.scoring_head import ScoringHead
from train.commands.command_line import parser_of, run
from train.commands.train import run_train
from train.head.estimate import estimate_run
from train.head.fit import figures, fit, fit_head, prepare, taps_of
from train.head.head_run import HeadRun
from train.head.module import HeadModule
from train.head.settings import SHUFFLED, VARIANTS, Fitting, Objective, Recipe, TaskRun
from train.tasks import get
from train.traces.collection import collect
from train.traces.prompts import prompts_of

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "configs/train/head.yaml"

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(LeafSpec|num_workers|enable_nested_tensor|number of training batches)"
)


@pytest.fixture(scope="module")
def command():
    """The function of train.py, which has the name of the package."""
    spec = importlib.util.spec_from_file_location("train_command", ROOT / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.train


@pytest.fixture(scope="module")
def base(tmp_path_factory, write_tiny) -> Path:
    """A LLaDA checkpoint of two small blocks with random weights, sure of itself, and the shipped tokenizer."""
    return write_tiny(tmp_path_factory.mktemp("base"), width=32, layers=2, sharpness=60)


SMALL = {
    "tasks": {
        "multiplication": {"prompts": 4, "dev_prompts": 2, "block_length": 16},
        "countdown3": {"prompts": 3, "dev_prompts": 2, "block_length": 8},
    },
    "beam": {"threshold": 0.9, "branches": 2},
    "drivers": {
        "ete": {"policy": "ete", "block_length": 8},
        "threshold": {"policy": "threshold", "threshold": 0.8, "block_length": 5},  # divides neither canvas
    },
    "labelling": {"states_per_prompt": 3, "labelled": 1, "branches": 4, "strata": 2, "finished": 1},
    "fitting": {"variants": ["lora", "features", "shuffled"], "epochs": 2, "batch_size": 4, "rank": 2, "width": 16},
    "trials": {"screen": 2, "confirm": 2},
    "num_prompts": 4,
    "num_dev": 2,
    "catalogue": [
        {"name": "sequential", "kind": "headless", "policy": "sequential"},
        {"name": "learned", "kind": "learned", "policy": "learned", "dial": "risk_bound", "values": [0.3]},
    ],
}


def written(folder: Path, **changes: Any) -> str:
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump({**SMALL, **changes}, sort_keys=False))
    return str(file)


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
    assert not list(out.rglob("*.tmp"))


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


def job_of(base: Path, out: Path, **changes: Any) -> HeadRun:
    values = {
        "model": str(base), "out": out, "tasks": {"countdown3": TaskRun(prompts=3, dev_prompts=2)},
        "beam": {"branches": 2}, "drivers": {"ete": {"policy": "ete"}}, "relabel": {},
        "labelling": Labelling(states_per_prompt=2, branches=3, strata=1, finished=1),
        "fitting": Fitting(variants=("linear",), epochs=1, width=16), "catalogue": (), "num_prompts": 2, "num_dev": 2,
        "batch_size": 4, "seed": 0, "device": "cpu",
    }  # fmt: skip
    return HeadRun(**{**values, **changes})


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


def test_an_estimate_scales_a_probe_up(base, tmp_path):
    ticks = iter(range(100))
    head_run = job_of(
        base,
        tmp_path,
        tasks={
            "countdown3": TaskRun(prompts=27, dev_prompts=3, block_length=8),
            "lists": TaskRun(prompts=5, dev_prompts=1),
        },
    )
    lines = estimate_run(head_run, seconds=1.0, clock=lambda: next(ticks)).splitlines()
    assert lines[0].startswith("countdown3: 30 prompts, ")
    assert int(re.search(r"(\d+) gain labels, (\d+) risk labels", lines[0])[1]) > 30
    assert lines[1].startswith("lists: 6 prompts, ")
    assert lines[2].startswith("collection: 36 prompts, ")
    assert [line.partition(":")[0] for line in lines[3:]] == ["whole run", "memory", "disk", "download"]
    assert not list(tmp_path.iterdir())


def test_the_command_prints_its_estimate(command, base, tmp_path, capsys):
    config = written(tmp_path, tasks={"countdown3": {"prompts": 2, "dev_prompts": 1}})
    run(
        command,
        ["--config", config, "--model", str(base), "--out", str(tmp_path / "run"), "--device", "cpu", "--estimate"],
    )
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in printed][:2] == ["countdown3", "collection"]
    assert {"whole run", "download"} <= {line.partition(":")[0] for line in printed}
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tasks": {"suduko": {}}}, "task must be one of sudoku, "),
        ({"tasks": {}}, "tasks must name at least one task, got none"),
        ({"tasks": {"lists": {"block_length": 5}}}, "block_length must divide gen_length 32 of task lists, got 5"),
        ({"tasks": {"lists": {"block_length": 0}}}, "block_length must be at least 1, got 0"),
        ({"tasks": {"lists": {"prompts": 0}}}, "prompts must be at least 1, got 0"),
        ({"tasks": {"lists": {"prompts_file": "none.jsonl"}}}, "prompts_file must be a file, got none.jsonl"),
        ({"fitting": {"variants": ["lora", "deep"]}}, "variants must be among linear, features, hidden, lora, "),
        ({"fitting": {"variants": ["shuffled"]}}, "variants must begin with the head that is saved, got shuffled"),
        ({"fitting": {"variants": []}}, "variants must begin with the head that is saved, got none"),
        ({"fitting": {"width": 10}}, "width must be a multiple of 4, got 10"),
        ({"fitting": {"epochs": 0}}, "epochs must be at least 1, got 0"),
        ({"fitting": {"dropout": 1.0}}, "dropout must lie in [0, 1), got 1.0"),
        ({"fitting": {"blocks": 3}}, "blocks must be at most the base's 2, got 3"),
        ({"fitting": {"objective": {"target": "both"}}}, "target must be gain, eq7 or worth, got 'both'"),
        ({"fitting": {"objective": {"temperature": 0.0}}}, "temperature must be above 0, got 0.0"),
        ({"labelling": {"labelled": 9}}, "labelled must be at most states_per_prompt 4, got 9"),
        ({"drivers": {}}, "drivers must name at least one policy, got none"),
        ({"drivers": {"mine": {"threshold": 0.5}}}, "driver mine must name its policy, got "),
        ({"drivers": {"mine": {"policy": "beam"}}}, "policy of driver mine must be one of sequential, "),
        ({"drivers": {"mine": {"policy": "threshold", "limit": 1}}}, "policy threshold must be among threshold, got limit"),
        ({"drivers": {"mine": {"policy": "learned"}}}, "policy learned must have a model loaded with head=FOLDER"),
        ({"beam": {"treshold": 0.5}}, "settings of policy ete must be among "),
        ({"beam": {"threshold": 1.5}}, "threshold must lie in (0, 1], got 1.5"),
        ({"num_prompts": 0}, "num_prompts must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"catalogue": SMALL["catalogue"][1:]}, "arms must include the reference sequential, got learned"),
        ({"model": "checkpoints/nothing"}, "model must be a checkpoint folder or a hub id, got 'checkpoints/nothing'"),
    ],
)  # fmt: skip
def test_bad_input_is_told_in_one_sentence(command, base, tmp_path, capsys, changes, sentence):
    settings = {"model": str(base), "device": "cpu", **changes}
    if "blocks" in changes.get("fitting", {}):
        settings["tasks"] = {"countdown3": {"prompts": 1, "dev_prompts": 1}}
    with pytest.raises(SystemExit) as ended:
        run(command, ["--config", written(tmp_path, **settings), "--out", str(tmp_path / "run")])
    assert ended.value.code == 2
    sentences = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train.py: ")]
    assert len(sentences) == 1
    assert sentence in sentences[0]
    assert not (tmp_path / "run" / "metrics.json").exists()


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


LEARNING = Fitting(
    variants=("linear", "features", SHUFFLED),
    epochs=12,
    batch_size=8,
    width=16,
    objective=Objective(learning_rate=0.05, warm_up=2),
)


@pytest.fixture
def gathered(groups, collector_of, examples, tmp_path, monkeypatch):
    """Traces of bits: the second group of eight always comes out wrong, at even odds all the same. No base has blocks here."""
    monkeypatch.setattr("train.head.fit.VARIANTS", {**VARIANTS, SHUFFLED: Recipe("linear", shuffled=True)})
    labelling = Labelling(states_per_prompt=8, labelled=4, branches=8, strata=2)
    collector = collector_of(groups, drivers={"slow": Sequential(), "fast": Threshold(0.4)}, labelling=labelling)
    collector.run({"train": examples, "dev": examples[:4]}, tmp_path / "traces")
    return prepare(groups, [tmp_path / "traces"], LEARNING, threshold=0.9, seed=0)


def test_heads_learn_what_the_confidence_does_not_say(groups, gathered, tmp_path):
    heads = fit(groups, gathered, LEARNING, tmp_path, threshold=0.9, seed=0)
    found = {name: figures(head, gathered)["bits"] for name, head in heads.items()}
    for name in ("linear", "features"):
        assert found[name]["risk"]["auroc"] > 0.95
        assert found[name]["risk"]["log_loss_skill"]["low"] > 0.3
    assert found["linear"]["risk"]["auroc_confidence"] < 0.9
    assert found[SHUFFLED]["risk"]["log_loss_skill"]["estimate"] < 0.1
    assert json.loads((tmp_path / "metrics.json").read_text())["variants"]["linear"] == [{"bits": found["linear"]}]
    assert not heads["linear"].training


def test_a_fit_ends_with_the_weights_that_did_best_on_unseen_prompts(groups, gathered):
    dev = [batches[i] for batches in gathered.dev.values() for i in range(len(batches))]
    wild = replace(LEARNING, epochs=2, objective=Objective(learning_rate=300.0, warm_up=0))
    head = fit_head(groups, gathered, VARIANTS["linear"], wild, seed=0, threshold=0.9, logs=None)
    untrained = ScoringHead(head.config)
    assert (
        HeadModule(head, wild.objective).mean_loss(dev) <= HeadModule(untrained, wild.objective).mean_loss(dev) + 1e-6
    )


def test_the_same_seed_gives_the_same_head(groups, gathered):
    few = replace(LEARNING, epochs=2)
    one, two, other = (
        fit_head(groups, gathered, VARIANTS["features"], few, seed=s, threshold=0.9, logs=None) for s in (3, 3, 4)
    )
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert any(
        not torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_only_heads_that_read_hidden_states_ask_for_taps(base):
    denoiser = models.load(base, device="cpu")
    assert taps_of(denoiser, Fitting(variants=("linear", "features"))) == ()
    assert taps_of(denoiser, Fitting(variants=("linear", "hidden"))) == (1,)
    assert taps_of(denoiser, Fitting(variants=("lora",), blocks=2)) == (0, 1)


def test_traces_that_the_base_does_not_repeat_are_refused(groups, gathered, tmp_path):
    groups.groups, groups.size = 1, 16  # one bit decides all of them
    with pytest.raises(ValueError, match=r"^log_risk in the traces must be what this base gives"):
        prepare(groups, [tmp_path / "traces"], LEARNING, threshold=0.5, seed=0)


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


def test_a_job_is_judged_before_torch_is_needed():
    with pytest.raises(ValueError, match=r"^names of arms must differ, got sequential twice$"):
        job_of(Path("x"), Path("y"), model=None, catalogue=(Arm("sequential", "headless", "sequential"),) * 2)
    assert train.head.estimate.PROBE_SECONDS == 30


def test_tasks_left_out_are_not_seen_and_are_recorded(command, base, tmp_path):
    arguments = ["--config", written(tmp_path, catalogue=[]), "--model", str(base), "--device", "cpu"]
    run(command, [*arguments, "--leave_out", "multiplication", "--out", str(tmp_path / "run")])
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (found["tasks"], found["left_out"]) == (["countdown3"], ["multiplication"])
    assert found["variants"]["lora"][0].keys() == {"countdown3"}
    assert not (tmp_path / "run" / "traces" / "multiplication").exists()
    assert yaml.safe_load((tmp_path / "run" / "train.yaml").read_text())["leave_out"] == "multiplication"


@pytest.mark.parametrize(
    ("left_out", "sentence"),
    [
        ("lists", "leave_out must be among the run's tasks multiplication, countdown3, got 'lists'"),
        ("countdown3, multiplication", "leave_out must leave a task to fit on, got all of them, countdown3, mult"),
    ],
)
def test_tasks_that_cannot_be_left_out_are_told_in_one_sentence(command, tmp_path, capsys, left_out, sentence):
    with pytest.raises(SystemExit):
        run(command, ["--config", written(tmp_path), "--leave_out", left_out, "--out", str(tmp_path / "run")])
    assert sentence in capsys.readouterr().err
