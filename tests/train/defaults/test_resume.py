"""A job that was stopped goes on, and ends as one that was not: the same head, cascade, defaults and sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import train.cascade.fit
import train.defaults.search
from decoding.comparison.arms import Arm
from decoding.traces.labelling import Labelling
from models.heads.defaults import Defaults, read_defaults
from train.commands.train import run_train
from train.defaults.settings import Trials
from train.head.head_run import HeadRun
from train.head.settings import CascadeFitting, Fitting, TaskRun

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(LeafSpec|num_workers|enable_nested_tensor|number of training batches|IterableDataset)"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory, write_tiny) -> Path:
    """A LLaDA checkpoint of two small blocks with random weights."""
    return write_tiny(tmp_path_factory.mktemp("base"), layers=2)


def job(base: Path, out: Path) -> HeadRun:
    return HeadRun(
        model=str(base), out=out, tasks={"countdown3": TaskRun(prompts=4, dev_prompts=2)}, beam={"branches": 2},
        drivers={"one": {"policy": "threshold", "threshold": 0.9}}, relabel={},
        labelling=Labelling(states_per_prompt=2, branches=3, strata=1, finished=1),
        fitting=Fitting(variants=("linear",), epochs=1, width=16), catalogue=(), num_prompts=2, num_dev=2,
        batch_size=4, seed=0, device="cpu", trials=Trials(screen=2, confirm=3, bounds=(0.5, 0.1)),
        cascade=CascadeFitting(
            steps=4, prompts=6, batch_size=2, rank=2, drivers=({"policy": "quota", "steps": 12},)
        ),
    )  # fmt: skip


def left(out: Path) -> dict[str, bytes]:
    files = [*out.glob("*.safetensors"), *out.glob("cascade/*.safetensors"), out / "defaults.json"]
    return {file.relative_to(out).as_posix(): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory) -> tuple[Path, str]:
    """A job that was not stopped: its folder and what it said."""
    out = tmp_path_factory.mktemp("job") / "whole"
    return out, run_train(job(base, out))


def stop(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (train.cascade.fit, "trust"),  # fitted, not yet judged
        (train.cascade.fit, "evaluate"),
        (train.defaults.search, "write_defaults"),  # everything but the last line
    ],
)
def test_a_job_that_was_stopped_ends_as_one_that_was_not(base, whole, tmp_path, monkeypatch, module, name):
    out, said = whole
    with monkeypatch.context() as patched:
        patched.setattr(module, name, stop)
        with pytest.raises(KeyboardInterrupt):
            run_train(job(base, tmp_path / "parts"))
    halfway = read_defaults(tmp_path / "parts")
    assert halfway is not None
    assert halfway.alone  # what is there already does no harm
    again = run_train(job(base, tmp_path / "parts"))
    assert left(tmp_path / "parts") == left(out)
    assert again == said.replace(str(out), str(tmp_path / "parts"))
    assert "countdown3 has 4 dev prompts to decide by and needs 200" in " ".join(again.split())
    assert read_defaults(tmp_path / "parts") == Defaults("confidence", 0.1, 0)


@pytest.mark.parametrize("where", ["trials/countdown3.jsonl", "countdown3.jsonl"])
def test_figures_of_another_run_are_refused_before_anything_is_done(base, tmp_path, where):
    arms = (Arm("sequential", "headless", "sequential"),)
    mine = replace(job(base, tmp_path), catalogue=arms)
    file = tmp_path / where
    file.parent.mkdir(exist_ok=True)
    file.write_text('{"task": "countdown3", "model": "another"}\n')
    with pytest.raises(ValueError, match=r"model must be 'another' to go on with .*countdown3.jsonl, got "):
        run_train(mine)
    assert [one.relative_to(tmp_path).as_posix() for one in tmp_path.rglob("*") if one.is_file()] == [where]


def test_the_figures_of_a_run_are_its_own(base, tmp_path):
    arms = (Arm("sequential", "headless", "sequential"),)
    mine = replace(job(base, tmp_path), catalogue=arms)
    said = run_train(mine)
    kept = (tmp_path / "countdown3.jsonl").read_bytes()
    assert run_train(mine) == said
    assert (tmp_path / "countdown3.jsonl").read_bytes() == kept
