"""A run of `train.py` with a budget: what a probe tells, what is cut, and what a run that goes on keeps."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import models
import train.head.estimate as estimate
from tests.fit_request import job_of
from train.head.head_run import reference_policy
from train.head.price.amounts import Decoded, Pace
from train.head.settings import TaskRun
from train.tasks import get
from train.traces.prompts import prompts_of


@pytest.fixture
def probes(monkeypatch) -> list[int]:
    """Collections that take a second a prompt and keep two states of it."""
    requests: list[int] = []

    def collect(head_run, denoiser, beam):
        (task,) = head_run.tasks.values()
        requests.append(task.prompts + task.dev_prompts)

    monkeypatch.setattr(estimate, "_collect", collect)
    quick = Pace(0.0, 40, {"threshold": Decoded(4.0, 4.0, 8.0, 4.0, 8.0)})
    monkeypatch.setattr(estimate, "_pace", lambda *_, **__: quick)
    monkeypatch.setattr(estimate, "_size_of", lambda folder: estimate.Size(states=2.0 * requests[-1]))
    return requests


def test_a_probe_doubles_and_its_last_time_is_scaled_up(tmp_path, probes):
    ticks = iter([0.0, 3.0, 3.0, 8.0, 8.0, 18.0])  # 2 prompts and a dev prompt, 4 and 1, 8 and 2
    probed = estimate.probe(job_of(tmp_path), None, None, seconds=45.0, clock=lambda: next(ticks))  # type: ignore[arg-type]
    assert probes == [3, 5, 10]
    size = probed["lists"].size
    assert (size.seconds, size.prompts, size.states) == pytest.approx((48, 48, 96))
    assert probed["lists"].said == " (as 10 prompts took)"


def test_a_budget_cuts_the_prompts_and_a_run_that_goes_on_keeps_the_cut(tmp_path, probes):
    head_run = job_of(tmp_path, budget_hours=24 / 3600)
    ticks = iter(range(0, 1000, 5))
    cut = estimate.cut_to_budget(head_run, None, None, seconds=1.0, clock=lambda: float(next(ticks)))  # type: ignore[arg-type]
    # three prompts in five seconds, 80 for all: .27 of them, less a tenth
    assert (cut.tasks["lists"].prompts, cut.tasks["lists"].dev_prompts) == (10, 2)
    assert estimate.cut_to_budget(head_run, None, None) == cut  # type: ignore[arg-type]
    assert probes == [3]
    ample = job_of(tmp_path / "more", budget_hours=10.0)
    ample.out.mkdir()
    assert estimate.cut_to_budget(ample, None, None, seconds=1.0, clock=lambda: float(next(ticks))) == ample  # type: ignore[arg-type]


def test_a_short_file_is_scaled_up_to_what_it_holds(tmp_path, probes):
    file = tmp_path / "questions.jsonl"
    rows = ({"question": f"How much is {n}?", "answer": f"#### {n}"} for n in range(40))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = TaskRun(prompts=10_000, dev_prompts=500, prompts_file=str(file), at_most=True)
    head_run = job_of(tmp_path, tasks={"gsm8k": task}, budget_hours=24 / 3600)
    counts = {split: len(prompts_of(get("gsm8k"), task, split, 10_000, seed=0)) for split in ("train", "dev")}
    assert 0 < counts["dev"] < counts["train"] < 40
    (held,) = estimate.as_held(head_run).tasks.values()
    assert (held.prompts, held.dev_prompts) == (counts["train"], counts["dev"])
    ticks = iter(range(0, 1000, 5))
    probed = estimate.probe(head_run, None, None, seconds=1.0, clock=lambda: float(next(ticks)))  # type: ignore[arg-type]
    assert probed["gsm8k"].size.prompts == sum(counts.values())
    cut = estimate.cut_to_budget(head_run, None, None, seconds=1.0, clock=lambda: float(next(ticks)))  # type: ignore[arg-type]
    assert cut.tasks["gsm8k"].prompts < counts["train"]
    assert json.loads((tmp_path / "budget.json").read_text())["asked"] == {"gsm8k": [10_000, 500]}
    plain = replace(task, at_most=False)
    assert estimate.as_held(job_of(tmp_path, tasks={"gsm8k": plain})).tasks == {"gsm8k": plain}


def test_a_budget_leaves_two_train_prompts_where_there_are_two(tmp_path, probes):
    ticks = iter(range(0, 1000, 5))
    tasks = {"lists": TaskRun(prompts=40, dev_prompts=8), "words": TaskRun(prompts=1, dev_prompts=1)}
    head_run = job_of(tmp_path, tasks=tasks, budget_hours=1e-6)
    cut = estimate.cut_to_budget(head_run, None, None, seconds=1.0, clock=lambda: float(next(ticks)))  # type: ignore[arg-type]
    assert [(run.prompts, run.dev_prompts) for run in cut.tasks.values()] == [(2, 1), (1, 1)]
    assert [file.name for file in tmp_path.iterdir()] == ["budget.json"]


@pytest.mark.parametrize(
    "changes",
    [
        {"budget_hours": 2.0},
        {"tasks": {"lists": TaskRun(prompts=41, dev_prompts=8)}},
        {"tasks": {"lists": TaskRun(prompts=40, dev_prompts=9)}},
        {"tasks": {"words": TaskRun(prompts=40, dev_prompts=8)}},
        {"tasks": {"lists": TaskRun(prompts=40, dev_prompts=8), "words": TaskRun()}},
    ],
)
def test_a_run_that_goes_on_must_ask_for_what_was_cut(tmp_path, probes, changes):
    ticks = iter(range(0, 1000, 5))
    head_run = job_of(tmp_path, budget_hours=1.0)
    estimate.cut_to_budget(head_run, None, None, seconds=1.0, clock=lambda: float(next(ticks)))  # type: ignore[arg-type]
    other = replace(head_run, **changes)
    with pytest.raises(ValueError, match=r"budget\.json must be of a run that was asked for") as error:
        estimate.cut_to_budget(other, None, None)  # type: ignore[arg-type]
    assert str(error.value).endswith('got {"budget_hours": 1.0, "asked": {"lists": [40, 8]}}')


@pytest.mark.parametrize("text", ['{"lists": [10, 2]}', "[]", '{"lists'])
def test_a_budget_file_that_no_run_wrote_is_one_sentence(tmp_path, text):
    (tmp_path / "budget.json").write_text(text)
    with pytest.raises(ValueError, match=r"budget\.json must (be|hold) "):
        estimate.cut_to_budget(job_of(tmp_path, budget_hours=1.0), None, None)  # type: ignore[arg-type]


def test_a_probe_is_warm_before_its_clock_starts(tmp_path, tiny, monkeypatch):
    happened: list[str] = []
    denoiser = models.load(tiny, device="cpu")
    denoiser.register_forward_hook(lambda *_: happened.append("forward"))
    monkeypatch.setattr(estimate, "_collect", lambda head_run, denoiser, beam: happened.append("collect"))
    clock = lambda: happened.append("clock") or 0.001 * len(happened)  # noqa: E731
    head_run = job_of(tmp_path, model=str(tiny))
    estimate.probe(head_run, denoiser, reference_policy(head_run, denoiser), seconds=100.0, clock=clock)
    # the time there is, then a forward that no figure holds, then the first that is timed
    assert happened[:5] == ["clock", "forward", "clock", "forward", "clock"]
    assert "collect" in happened
