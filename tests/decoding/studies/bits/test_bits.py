"""Bits against rounds: what is summed, what counts as broken, and that nothing breaks on an exact model."""

import math

import numpy as np
import pytest
import torch

from decoding.prompts import Prompts
from decoding.studies.bits.study import Followed, decode, escape, exact_rows, summarise
from decoding.studies.chain_rule import joint_bound
from decoding.studies.inputs import StudyInputs
from models.denoiser import Denoiser, Prediction

BENCH = StudyInputs("", None, "cpu", 0, make_problems=lambda *_: None, fit=lambda *_: None)


class Turncoat(Denoiser):
    """Token 0 has probability .9 at both positions, but .1 as soon as the other one is revealed."""

    mask_id, eos_id, vocab_size, max_length = 2, None, 3, 99

    def forward(self, tokens, *, rows, **_):
        p = torch.where((tokens[:, -2:] != 2).any(-1), 0.1, 0.9).unsqueeze(-1).expand(tokens.shape)
        logits = torch.stack([p, 1 - p, torch.zeros_like(p)], -1).log().clamp(min=-60)
        return Prediction(logits[rows], rows, torch.full((len(tokens),), tokens.shape[1]))


def test_no_confidence_only_run_of_the_exact_block_hmm_breaks_a_bound():
    for row in exact_rows(BENCH, (0.25, 1.0), 6, 16):
        assert row["task"] == "block-hmm"
        assert (row["rounds_off"], row["rounds_broken"]["high"], row["sequences_broken"]["high"]) == (0, 0.0, 0.0)
        assert 0 < row["tightness"]["estimate"] <= 1
        assert row["exploit_rounds"]["estimate"] > row["forced_rounds"]["estimate"]


def test_a_model_that_contradicts_itself_breaks_the_bound_and_is_counted():
    prompts = Prompts(torch.zeros(3, 1, dtype=torch.long), None)
    found = list(decode(Turncoat(), prompts, 0.5, 2, gen_length=2, block_length=2))
    assert len(found) == 3
    for one in found:  # (1 + 1)(.1) <= .5 and (2 + 1)(.1) <= .5: both at once
        assert (one.exploit_rounds, one.forced_rounds, one.rounds_broken, one.rounds_off) == (1, 0, 1, 0)
        assert one.nll == one.exploit_nll == pytest.approx(-math.log(0.09), rel=1e-5)
        assert one.epsilon == pytest.approx(math.log(9), rel=1e-5)
        assert one.bound == pytest.approx(-math.log(0.09) / joint_bound(torch.tensor(2.0), 0.5).item(), rel=1e-5)
        assert one.broken


def test_a_round_on_its_bound_does_not_break_it():
    table = Followed(1.0, 0.0, 2.0, 1.0, 0.8, 0.1, 1.5, 1.7, False, 0.0, 0.0)
    found = summarise([table] * 4, seed=0)
    assert found["bits"]["estimate"] == pytest.approx(1 / math.log(2))
    assert found["tightness"]["estimate"] == 0.75
    assert found["tightness_block"]["estimate"] == 0.85
    assert found["forced_share"]["estimate"] == pytest.approx(1 / 3)
    assert found["pearson"] is None  # nothing varies
    assert np.isfinite(found["sequences_broken"]["high"])


def test_exploration_escapes_the_bound_on_the_toy():
    found = escape()
    assert found["explore"] == 2 < found["bound"] == 3 <= found["exploit"]
    assert found["nll"] == pytest.approx(4 * math.log(2), rel=1e-5)
