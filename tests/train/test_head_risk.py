"""Risk before and after a look, against labels."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import models
from decoding.features import NAMES
from decoding.policies.learned import Learned
from models.heads.cascade import Cascade, CascadeConfig
from models.heads.config import HeadConfig
from models.heads.scoring_head import ScoringHead, save_head
from train.commands.command_line import run, shipped
from train.head.data import HeadData
from train.head.metrics import RiskEstimates
from train.head.module import PreparedBatches
from train.head_risk import CROSSED, after_look, figures, head_risk, left_by, skills, traces

BASE = str(shipped("checkpoints/reason-7m"))

pytestmark = pytest.mark.filterwarnings("ignore:.*(LeafSpec|enable_nested_tensor)")


@pytest.fixture(scope="module")
def base():
    denoiser = models.load(BASE, device="cpu")
    denoiser.put_on(ScoringHead(HeadConfig("linear", NAMES), denoiser).eval().requires_grad_(False))
    cascade = Cascade(CascadeConfig(rank=2, base=denoiser.fingerprint()), denoiser).eval().requires_grad_(False)
    denoiser.head.cascade = cascade
    return denoiser


@pytest.fixture(scope="module")
def rows(base, tmp_path_factory):
    return traces(base, "sudoku", None, 8, batch_size=8, seed=0, folder=tmp_path_factory.mktemp("traces"))


@pytest.fixture(scope="module")
def some(base, rows):
    data = HeadData(rows[:12], base.mask_id, base.eos_id, CROSSED, 16)
    return PreparedBatches(base, list(data.batches(12, generator=None)), taps=base.head.taps_ahead, threshold=CROSSED)[
        0
    ]


def test_of_positions_committed_the_risk_stays_and_an_unfitted_look_changes_nothing(base, some):
    policy = Learned(base.head, risk_bound=0.3, looks=0)
    left = left_by(policy, some)
    assert 0 < left.sum() < some.reading.rows.sum()
    risk = some.scored_by(base.head).risk
    torch.testing.assert_close(after_look(policy, some, weight=0.0), risk, atol=1e-3, rtol=1e-2)
    with torch.no_grad():
        base.head.readout.bias[0] = 1.5  # the head corrects every logit by this
        shifted = Learned(base.head, risk_bound=1.0, looks=0)
        again, corrected = left_by(shifted, some), some.scored_by(base.head).risk
        plain, both = (after_look(shifted, some, weight=weight) for weight in (0.0, 1.0))
        base.head.readout.bias[0] = 0.0
    torch.testing.assert_close(plain[again], risk[again], atol=1e-3, rtol=1e-2)
    torch.testing.assert_close(both[again], corrected[again], atol=1e-3, rtol=1e-2)
    committed = some.reading.rows & ~again
    assert committed.any()
    assert torch.equal(plain[committed], corrected[committed])


@pytest.mark.parametrize("own", [0.125, 0.0078125])
def test_the_risk_is_of_the_candidate_itself(base, some, monkeypatch, own):
    """Where the next forward would take another token, the candidate's risk is all that is not its own."""
    foretold = torch.tensor([own, 0.625 - own, 0.0625, 0.0625, 0.0625, 0.1875]).log()
    monkeypatch.setattr(
        "decoding.policies.cascade.ask",
        lambda cascade, reading, committed, token: foretold.expand(int((reading.rows & ~committed).sum()), 6),
    )
    policy = Learned(base.head, risk_bound=0.3, looks=0)
    risk = after_look(policy, some, weight=0.0)[left_by(policy, some)]
    torch.testing.assert_close(risk, torch.full_like(risk, 1 - own))


def test_figures_are_of_all_positions_and_of_those_left(base, rows):
    found = figures(base, rows, risk_bound=0.3, batch_size=4)
    assert set(found) == {"head", "look", "both"}
    every, left = (found["head"][where] for where in ("all", "left"))
    assert 0 < left["positions"] < every["positions"]
    assert every["share_wrong"] < left["share_wrong"]
    assert found["head"]["all"]["log_loss_skill"]["estimate"] == pytest.approx(0, abs=0.02)  # 1 - c itself
    assert figures(base, [], risk_bound=0.3, batch_size=4) == {}


def test_a_look_leaves_the_correction_out_and_both_has_all_of_it(base, rows, monkeypatch):
    weights = []

    def noted(policy, one, *, weight):
        weights.append(weight)
        return one.scored_by(policy.head).risk

    monkeypatch.setattr("train.head_risk.after_look", noted)
    assert list(figures(base, rows[:4], risk_bound=0.3, batch_size=4)) == ["head", "look", "both"]
    assert weights == [0.0, 1.0]


def test_skill_is_judged_on_other_prompts_than_everything_is_fitted_on():
    """The estimate is right on even prompts and the opposite of right on odd ones; the confidence knows nothing."""
    prompt = np.arange(8) // 2
    wrong = np.array([1.0, 0.0] * 4)
    estimate = np.where((wrong > 0) == (prompt % 2 == 0), 0.75, 0.25)
    judged = RiskEstimates(prompt, wrong, estimate, np.full(8, 0.5))
    found = skills(judged)
    assert found["positions"] == 4
    assert found["brier_skill"]["estimate"] == pytest.approx(-3, rel=1e-3)  # 1 against .25
    for half in (0, 1):
        for only in (0.0, 1.0):
            assert skills(replace(judged, wrong=np.where(prompt % 2 == half, only, wrong))) == {}


def test_the_command_writes_what_it_prints(base, tmp_path, capsys):
    save_head(base.head, tmp_path / "head")
    arguments = ["--task", "multiplication", "--num_prompts", "4", "--head", str(tmp_path / "head")]
    run(head_risk, [*arguments, "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in printed] == [
        ["multiplication", estimate, where] for estimate in ("head", "look", "both") for where in ("all", "left")
    ]
    written = json.loads((tmp_path / "out" / "head-risk.json").read_text())
    assert written["risk_bound"] == 0.05
    assert set(written["tasks"]["multiplication"]) == {"head", "look", "both"}
    assert written["environment"]["seed"] == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--num_prompts", "1"], "num_prompts must be at least 2, got 1"),
        (["--risk_bound", "0"], r"risk_bound must lie in (0, 1], got 0.0"),
        (["--head", "nowhere"], "head must be a folder with head.safetensors, got nowhere"),
        (["--task", "tea"], "tea"),
        (["--task", "gsm8k"], "prompts of task gsm8k must be a file, for it has no generator, got none"),
        (["--task", "lists,sudoku", "--prompts", "x.jsonl"], "prompts must come with one task, got 2"),
    ],
)
def test_the_command_refuses_bad_input_in_a_sentence(capsys, tmp_path, arguments, complaint):
    with pytest.raises(SystemExit) as ended:
        run(head_risk, [*arguments, "--out", str(tmp_path)])
    printed = capsys.readouterr().err
    assert ended.value.code == 2
    assert printed.startswith("head_risk.py: ")
    assert printed.count("\n") == 1
    assert complaint in printed
