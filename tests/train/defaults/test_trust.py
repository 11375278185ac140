"""What a head adds to the confidence is trusted as far as states held out bear it out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.heads.config import HeadConfig
from models.heads.scoring_head import ScoringHead
from models.heads.window_scores import prior_of
from train.defaults.trust import borne_out
from train.head.metrics import RiskEstimates


def held(noise: float, shuffled: bool = False, n: int = 3000, prompts: int = 60) -> RiskEstimates:
    """Risks of .05 and .55 that the confidence takes for .3 all; a head that tells them apart, but for `noise` in its logits."""
    rng = np.random.default_rng(0)
    risk = rng.choice([0.05, 0.55], n)
    wrong = (rng.random(n) < risk).astype(float)
    logit = np.log(risk / (1 - risk)) + noise * rng.standard_normal(n)
    head = 1 / (1 + np.exp(-logit))
    return RiskEstimates(np.arange(n) % prompts, wrong, rng.permutation(head) if shuffled else head, np.full(n, 0.3))


def test_a_head_that_knows_more_is_trusted_and_one_that_guesses_is_not():
    assert borne_out(held(0.0), seed=0) == 1.0
    assert borne_out(held(0.0, shuffled=True), seed=0) == 0.0
    assert borne_out(held(8.0), seed=0) == 0.0


def test_a_noisy_head_is_trusted_in_part():
    assert 0 < borne_out(held(1.4), seed=0) < 1


def test_two_positions_are_not_enough():
    few = held(0.0).where(np.arange(3000) < 2)
    assert borne_out(few, seed=0) == 0.0
    assert borne_out(held(0.0).where(np.arange(3000) < 199), seed=0) == 0.0


@pytest.mark.parametrize("trust", [0.0, 0.5, 1.0])
def test_trust_scales_the_correction_of_the_confidence(trust):
    torch.manual_seed(0)
    head = ScoringHead(HeadConfig("linear", ("log_risk",), trust=trust))
    torch.nn.init.constant_(head.readout.bias, 2.0)
    log_risk = torch.tensor([[-3.0, -0.5]])
    rows = torch.ones(1, 2, dtype=torch.bool)
    scores = head(log_risk.unsqueeze(-1), rows, torch.zeros(1, 2, dtype=torch.long))
    torch.testing.assert_close(scores.risk_logit, prior_of(log_risk) + 2 * trust)
