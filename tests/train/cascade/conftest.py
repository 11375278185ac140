"""The shipped base with its head, prompts of a puzzle, and the examples of their decodes."""

from __future__ import annotations

import pytest

import models
from decoding.features import NAMES
from decoding.policies.threshold import Threshold
from models.heads.cascade import Cascade, CascadeConfig
from models.heads.config import HeadConfig
from models.heads.scoring_head import ScoringHead
from train.cascade.examples import CascadeExample, TaskPrompts, examples
from train.commands.command_line import shipped
from train.head.settings import TaskRun


@pytest.fixture(scope="module")
def base():
    denoiser = models.load(shipped("checkpoints/reason-7m"), device="cpu")
    denoiser.put_on(ScoringHead(HeadConfig("linear", NAMES), denoiser).eval())
    denoiser.head.cascade = Cascade(CascadeConfig(rank=4, base=denoiser.fingerprint()), denoiser).eval()
    return denoiser


@pytest.fixture(scope="module")
def countdown() -> TaskPrompts:
    return TaskPrompts.of("countdown3", TaskRun(prompts=6, dev_prompts=3), "train", None, seed=0)


@pytest.fixture(scope="module")
def taught(base, countdown) -> list[CascadeExample]:
    return list(examples(base, countdown, countdown.texts, Threshold(0.7), base.head.taps_ahead))
