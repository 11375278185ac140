"""What only shows on the functions without the shape-checking wrapper; run in a process of its own where it is on."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from decoding.commit import commit
from decoding.features import NAMES, features
from decoding.policies.ete import BeamETE
from decoding.policies.field.freedave import FreeDave
from decoding.policies.learned import Learned
from decoding.policies.learned_ete import LearnedParity
from decoding.policies.quota import Sequential
from decoding.policies.threshold import Threshold
from decoding.policies.verified import Verified
from decoding.policy import Policy
from decoding.reading import Reading, read
from models.heads.config import HeadConfig
from models.heads.scoring_head import ScoringHead

WRAPPED = hasattr(Threshold.propose, "__wrapped__")
unwrapped = pytest.mark.skipif(WRAPPED, reason="runs in a process without shape checks")


@pytest.mark.skipif(not WRAPPED, reason="is that process")
def test_in_a_process_without_shape_checks():
    options = ["-o", "addopts=--import-mode=importlib", "-q", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, __file__]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d\d passed, \d+ skipped", done.stdout), done.stdout


@pytest.fixture
def predict(begin, sampling_of, denoisers, any_policy):
    """Read canvases [B, K] as the loop does."""

    def predict_(canvases) -> Reading:
        denoiser = denoisers["context"]
        shape = canvases.tokens.shape[:2]
        index = torch.ones(shape, dtype=torch.bool).nonzero()
        prediction = denoiser(canvases.tokens.flatten(0, 1), rows=canvases.feasible.flatten(0, 1))
        generator = torch.Generator().manual_seed(0)
        return read(prediction, sampling_of(denoiser, any_policy), generator).scatter(index, tuple(shape))

    return predict_


def with_three_canvases(policy: Policy) -> Policy:
    """The policy with a certain canvas, a draft and a draft on that at most: the compiler unrolls what goes on in the same way."""
    if isinstance(policy, Verified):
        return replace(policy, canvases=min(policy.canvases, 3))
    return replace(policy, draft_steps=min(policy.draft_steps, 3)) if isinstance(policy, FreeDave) else policy


@unwrapped
def test_propose_and_choose_are_tensor_programs(predict, begin, denoisers, any_policy, prompts):
    any_policy = with_three_canvases(any_policy)
    head = getattr(any_policy, "head", None)
    if head is not None and head.cascade is not None:
        pytest.skip("a look packs its rows, and waits for the host")
    torch.compiler.reset()
    first = torch.zeros(len(prompts), dtype=torch.long)
    state = begin(denoisers["context"], any_policy, prompts)
    reading = predict(state.repeat(1)).at(first)
    propose = torch.compile(any_policy.propose, fullgraph=True, backend="eager")
    choose = torch.compile(any_policy.choose, fullgraph=True, backend="eager")
    proposal, expected = propose(state, reading), any_policy.propose(state, reading)
    for name in ("tokens", "reason", "live", "log_confidence"):
        assert torch.equal(getattr(proposal, name), getattr(expected, name))
    canvases = commit(state, reading, expected)
    after = predict(canvases)
    assert torch.equal(choose(canvases, proposal, after), any_policy.choose(canvases, expected, after))


@unwrapped
@pytest.mark.parametrize("variant", ["linear", "features"])
def test_features_and_the_heads_that_read_them_alone_are_tensor_programs(canvas, reading_of, variant):
    torch.compiler.reset()
    head = ScoringHead(HeadConfig(variant, NAMES, width=16)).eval().requires_grad_(False)
    nn.init.normal_((head.readout[-1] if variant == "features" else head.readout).weight)
    state, reading = canvas(6, 3), reading_of([0.9, 0.3, 0.5, 0.0, 0.0, 0.0])

    def scored():
        figures = features(state, reading, reading.confidence >= 0.9)
        return figures, head(figures, reading.rows, reading.token)

    figures, scores = torch.compile(scored, fullgraph=True, backend="eager")()
    expected, by_hand = scored()
    assert torch.equal(figures, expected)
    assert torch.equal(scores.gain, by_hand.gain)
    assert torch.equal(scores.risk, by_hand.risk)
    assert scores.gain[reading.rows].all()


@unwrapped
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Sequential(order="low"), "order"),
        (lambda: BeamETE(candidate_rule="best"), "candidate_rule"),
        (lambda: BeamETE(frontier="all"), "frontier"),
        (lambda: BeamETE(implicit_scope="row"), "implicit_scope"),
        (lambda: BeamETE(eq7_over="all"), "eq7_over"),
        (lambda: Learned(ScoringHead(HeadConfig("linear", NAMES)), rule="both"), "rule"),
        (lambda: LearnedParity(head=ScoringHead(HeadConfig("linear", NAMES)), among="some"), "among"),
        (lambda: Verified(Threshold(), mode="both"), "mode"),
        (lambda: Verified(Threshold(), source="head"), "source"),
        (lambda: HeadConfig("deep", NAMES), "variant"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(make, name):
    with pytest.raises(ValueError, match=rf"^{name} must be one of \w+, .*, got '\w+'$"):
        make()
