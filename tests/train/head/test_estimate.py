"""What a run takes, said in a bounded time whatever the base: counted, measured on a clock that forwards move, in words."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import models
import train.head.estimate as estimate
from decoding.comparison.arms import Arm
from decoding.policies.quota import Sequential
from decoding.policies.threshold import Threshold
from decoding.prompts import read_prompts
from decoding.traces.labelling import Labelling
from train.defaults.settings import Trials
from train.head.head_run import HeadRun, reference_policy
from train.head.price.amounts import Decoded, Pace, counted
from train.head.price.pacing import measure_pace
from train.head.settings import CascadeFitting, Fitting, TaskRun
from train.tasks import get

LABELLING = Labelling(states_per_prompt=3, labelled=2, branches=6, finished=2, bare=0, dev_branches=None)


@pytest.fixture
def slow(tiny):
    """A base whose forwards move the clock: so many seconds a position."""
    denoiser, now = models.load(tiny, device="cpu"), [0.0]

    def make(seconds: float):
        def tick(module, args, kwargs):
            now[0] += seconds * (args[0] if args else kwargs["tokens"]).numel()

        denoiser.register_forward_pre_hook(tick, with_kwargs=True)
        return denoiser, lambda: now[0]

    return make


def job(folder: Path, model: Path, **changes) -> HeadRun:
    settings = {
        "model": str(model), "out": folder, "tasks": {"lists": TaskRun(prompts=12, dev_prompts=4)},
        "beam": {"threshold": 0.5, "branches": 2}, "drivers": {"slow": {"policy": "threshold", "threshold": 0.5}},
        "relabel": {}, "labelling": LABELLING, "fitting": Fitting(variants=("lora",), epochs=1), "catalogue": (),
        "num_prompts": 2, "num_dev": 2, "batch_size": 4, "seed": 0, "device": "cpu", **changes,
    }  # fmt: skip
    return HeadRun(**settings)


def test_a_collection_is_counted_as_its_settings_say():
    pace = Pace(0.5, 50, {"one": Decoded(rounds=10.0, canvases=20.0, open=8.0, unsure=4.0, masked=16.0)})
    unique = counted(pace, LABELLING, {"train": 3}, unique=True)
    # a decode of 20 canvases; of two labelled states each a look, the plan alone and four branches
    assert unique.seconds == pytest.approx(3 * 0.5 * (20 + 2 * (2 + 4)))
    assert (unique.prompts, unique.states, unique.branches, unique.risks) == (3, 9, 24, 72)
    ends = counted(pace, LABELLING, {"train": 3}, unique=False)
    # and besides the free end and those of two branches, each a forward and one for each mask
    assert ends.seconds == pytest.approx(3 * 0.5 * (20 + 2 * (2 + 4 + 3 * 17)))
    assert (ends.states, ends.risks) == (6, 24)


def pace_of(denoiser, clock, seconds: float, drivers=None) -> Pace:
    batch = read_prompts(["1 2 3", "4 5 6", "7 8 9", "1 1 1"], None, denoiser).with_canvas(16)
    drivers = drivers or {"one": (Sequential(), 16), "many": (Threshold(1e-6), 16)}
    return measure_pace(denoiser, batch, drivers, gen_length=16, threshold=0.9, seconds=seconds, clock=clock)


def test_the_pace_is_that_of_the_forwards_and_of_whole_decodes(slow):
    pace = pace_of(*slow(0.01), seconds=1000.0)
    assert pace.seconds == pytest.approx(0.01 * pace.length)
    assert pace.decoded["one"] == Decoded(rounds=16.0, canvases=16.0, open=8.5, unsure=8.5, masked=8.5)
    assert pace.decoded["many"].rounds == 1.0
    assert not pace.guessed


def test_a_decode_that_is_cut_short_is_scaled_up(slow):
    pace = pace_of(*slow(0.01), seconds=4.0, drivers={"one": (Sequential(), 16)})
    assert pace.decoded["one"].rounds == pytest.approx(16.0)


@pytest.mark.parametrize("each", [1e-3, 0.02, 0.1, 1.0])
def test_the_time_is_kept_whatever_the_base(slow, tiny, tmp_path, each):
    denoiser, clock = slow(each)
    head_run = job(tmp_path, tiny)
    probed = estimate.probe(head_run, denoiser, reference_policy(head_run, denoiser), seconds=30.0, clock=clock)
    assert clock() <= 45.0
    size = probed["lists"].size
    assert size.prompts == pytest.approx(16)
    assert probed["lists"].pace.guessed == (each == 1.0)
    if each == 0.02:  # counted, not collected
        assert probed["lists"].collected == 0
        assert size.seconds > 30


def test_what_was_counted_is_what_is_collected(slow, tiny, tmp_path):
    denoiser, clock = slow(1e-4)
    head_run = job(tmp_path, tiny, tasks={"lists": TaskRun(prompts=4, dev_prompts=2)})
    beam = reference_policy(head_run, denoiser)
    (probed,) = estimate.probe(head_run, denoiser, beam, seconds=600.0, clock=clock).values()
    assert probed.collected == 6
    by_hand = counted(probed.pace, LABELLING, {"train": 4, "dev": 2}, unique=get("lists").unique_answer)
    assert by_hand.states == pytest.approx(probed.size.states, rel=0.3)
    assert probed.size.seconds <= 1.3 * by_hand.seconds  # counted: at most


def test_an_estimate_names_hours_memory_disk_and_download_of_the_whole_recipe(tiny, tmp_path, monkeypatch):
    arms = (Arm("sequential", "headless", "sequential"), Arm("threshold", "headless", "threshold", "threshold", (0.9,)))
    more = {"cascade": CascadeFitting(minutes=6.0), "trials": Trials(), "catalogue": arms, "budget_hours": 1.0}
    said = estimate.estimate_run(job(tmp_path, tiny, **more), seconds=1.0)
    lines = dict(line.split(": ", 1) for line in said.splitlines())
    assert list(lines) == ["lists", "collection", "whole run", "memory", "disk", "download", "budget"]
    for stage in ("collection", "fits", "cascade 0.10", "trials", "comparison"):
        assert stage in lines["whole run"]
    assert "GB of weights" in lines["memory"]
    assert lines["download"] == "nothing, the base is here"
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("train.head.price.whole_run.Weights.before", lambda base: _weights(16_000_000_000))
    assert "download: 16.00 GB" in estimate.estimate_run(job(tmp_path, tiny), seconds=0.5)


def _weights(download: int):
    from train.head.price.whole_run import Weights

    return Weights(download)


def test_padding_is_no_part_of_a_short_forward(slow):
    denoiser, clock = slow(1.0)
    batch = read_prompts(["1", "4 5 6 7 8 9 1 2 3"], None, denoiser).with_canvas(16)
    assert batch.attention_mask is not None
    pace = measure_pace(
        denoiser, batch, {"one": (Sequential(), 16)}, gen_length=16, threshold=0.9, seconds=1.0, clock=clock
    )
    assert pace.guessed
    assert torch.isfinite(torch.tensor(pace.seconds))
