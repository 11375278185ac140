"""How far a cascade's risks are to be trusted, and what is said of one that saw too little."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import models
from decoding.features import NAMES
from decoding.policies.bounds import RiskSum
from decoding.policies.threshold import Threshold
from models.heads.cascade import Cascade, CascadeConfig, load_cascade
from models.heads.config import HeadConfig
from models.heads.foretelling import shrunk
from models.heads.scoring_head import ScoringHead
from tests.saved_cascade import save_cascade
from train.cascade.evaluation import borne_out, trust
from train.cascade.examples import TaskPrompts, examples
from train.cascade.fit import line_of
from train.cascade.leading import CascadeExamples, Part
from train.commands.command_line import shipped
from train.head.settings import TaskRun


@pytest.fixture(scope="module")
def base():
    denoiser = models.load(str(shipped("checkpoints/reason-7m")), device="cpu")
    denoiser.put_on(ScoringHead(HeadConfig("linear", NAMES), denoiser).eval())
    return denoiser


@pytest.fixture
def cascade(base):
    base.head.cascade = Cascade(CascadeConfig(rank=4, base=base.fingerprint()), base).eval()
    return base.head.cascade


def test_risks_come_to_what_held_out_positions_say_and_one_more():
    foretold = np.repeat([1e-5, 1e-3], 1000)
    came = np.concatenate([np.full(1000, 1e-4), np.full(1000, 0.02)])
    risks, seen = borne_out(foretold, came)
    assert risks == pytest.approx([1e-5, 1e-3])
    assert seen == pytest.approx([1.1 / 1001, 21 / 1001])


def test_the_fewer_positions_the_less_is_trusted():
    floors = [borne_out(np.full(n, 1e-5), np.zeros(n))[1][0] for n in (200, 2000, 20000)]
    assert floors == pytest.approx([1 / 201, 1 / 2001, 1 / 20001])
    assert borne_out(np.full(2, 1e-5), np.zeros(2)) == ([1.0], [1.0])


def said_by(cascade: Cascade, probabilities: list[float]) -> list[float]:
    return shrunk(torch.tensor([probabilities]).log(), cascade.curve).exp()[0].tolist()


def test_what_is_not_borne_out_is_taken_from_the_likeliest(cascade):
    sure = [0.999, 0.0006, 0.0001, 0.0001, 0.0001, 0.0001]
    cascade.trusting([1e-3, 1e-1], [1e-2, 0.2])
    assert said_by(cascade, sure) == pytest.approx([0.99, 0.006, *[0.001] * 4], rel=1e-3)
    middle = [0.99, 0.006, *[0.001] * 4]  # half way in logarithms
    assert 1 - said_by(cascade, middle)[0] == pytest.approx((0.01 * 0.2) ** 0.5, rel=1e-3)
    cascade.trusting([1e-3], [1e-4])
    assert said_by(cascade, sure) == pytest.approx(sure, rel=1e-4)  # never surer than it says


def test_nothing_is_sure_where_nothing_is_trusted_and_the_likeliest_stays(cascade):
    cascade.trusting([1.0], [1.0])
    told = said_by(cascade, [0.999, 0.0006, 0.0001, 0.0001, 0.0001, 0.0001])
    assert told.index(max(told)) == 0
    assert max(told) < 0.7
    assert sum(told) == pytest.approx(1)


def test_trust_is_saved_with_the_cascade_and_old_ones_have_none(cascade, base, tmp_path):
    save_cascade(cascade, tmp_path / "old")
    assert load_cascade(tmp_path / "old", base).config.foretold == ()
    save_cascade(cascade.trusting([0.01, 0.1], [0.02, 0.3]), tmp_path / "new")
    assert load_cascade(tmp_path / "new", base).config == replace(
        cascade.config, foretold=(0.01, 0.1), seen=(0.02, 0.3)
    )
    with pytest.raises(ValueError, match=r"^seen must be as many as foretold, 1, got 0$"):
        CascadeConfig(foretold=(0.1,))
    with pytest.raises(ValueError, match=r"^foretold must be ascending risks in \(0, 1\], got "):
        CascadeConfig(foretold=(0.1, 0.01), seen=(0.1, 0.2))


def test_a_cascade_that_is_sure_of_the_wrong_is_not_believed(cascade, base):
    """Its head rows are turned round: sure, and of other tokens than the next forward."""
    torch.manual_seed(0)
    for own in (p for p in cascade.parameters() if p.requires_grad):
        torch.nn.init.normal_(own, std=0.5)
    prompts = TaskPrompts.of("countdown3", TaskRun(prompts=24, dev_prompts=1), "train", None, seed=0)
    held = trust(base, [prompts], [Threshold(0.9)], (1.0, 0.5), batch_size=24)
    assert held >= 200
    assert min(cascade.config.seen) > 0.05


def test_a_part_commits_the_surest_and_leaves_more_to_foretell(base, cascade):
    prompts = TaskPrompts.of("multiplication", TaskRun(prompts=4, dev_prompts=1), "train", None, seed=0)
    whole, part = (
        list(examples(base, prompts, prompts.texts, Part(RiskSum(0.2), share), base.head.taps_ahead))
        for share in (1.0, 0.3)
    )
    assert len(part) > len(whole)
    assert sum(one.to_learn for one in part) > sum(one.to_learn for one in whole)
    first = part[0]
    kept = first.reading.log_risk.masked_fill(~first.committed, -torch.inf).amax(-1)
    rest = first.reading.log_risk.masked_fill(~first.left, torch.inf).amin(-1)
    assert (kept <= rest).all()


def test_what_comes_from_two_positions_is_too_few_to_say():
    found = {"explained": {"estimate": 0.9988, "low": 0.99, "high": 1.0}, "open": 2, "learned": 2}
    assert line_of("multiplication", found) == (
        "multiplication: learned from 2 positions; share of the next forward foretold: too few (2 dev positions)"
    )


def test_drawing_ends_where_every_round_is_the_last(base, cascade):
    tasks = [TaskPrompts.of("countdown3", TaskRun(prompts=1, dev_prompts=1), "train", None, seed=0)]
    drivers = [Threshold(1e-6)]
    assert list(CascadeExamples(base, tasks, drivers, base.head.taps_ahead, batch_size=1, seed=0, positions=9)) == []


def test_a_task_with_positions_enough_needs_its_first_prompts_only(base, cascade, monkeypatch):
    prompts = TaskPrompts.of("countdown3", TaskRun(prompts=12, dev_prompts=1), "train", None, seed=0)
    how = ([prompts], [Threshold(0.9)], (1.0, 0.5))
    whole = trust(base, *how, batch_size=12)
    monkeypatch.setattr("train.cascade.evaluation.FIRST", 4)
    assert trust(base, *how, batch_size=12) > whole * 0.9  # too few in the first prompts: all of them, in two parts
    monkeypatch.setattr("train.cascade.evaluation.MANY", 1)
    assert 0 < trust(base, *how, batch_size=12) < whole * 0.6
