"""Figures of a head against recalibrated confidence, the beam and chance, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from decoding.features import NAMES
from models.heads.config import HeadConfig
from models.heads.scoring_head import Scores, ScoringHead
from models.toys.toy import GroupDenoiser
from train.head.data import HeadData
from train.head.metrics import (
    Recalibration,
    RiskEstimates,
    auroc,
    choice_figures,
    collect_choices,
    collect_risk,
    risk_figures,
)
from train.head.module import Prepared, PreparedBatches


def judged(confidence, wrong, head=None, prompt=None) -> RiskEstimates:
    confidence, wrong = np.asarray(confidence, float), np.asarray(wrong, float)
    prompt = np.arange(len(wrong)) % 7 if prompt is None else np.asarray(prompt)
    return RiskEstimates(prompt, wrong, confidence if head is None else np.asarray(head, float), confidence)


def test_recalibration_is_the_share_of_wrong_tokens_at_each_risk():
    risk = np.repeat([0.1, 0.2, 0.3], [4, 2, 2])
    fit = Recalibration.fit(risk, np.array([0, 0, 0, 1, 0, 1, 1, 1.0]))
    assert fit(np.array([0.1, 0.2, 0.3])).tolist() == pytest.approx([0.25, 0.5, 1 - 1e-5])
    assert fit(np.array([0.0, 0.15, 0.25, 0.9])).tolist() == pytest.approx([0.25, 0.25, 0.5, 1 - 1e-5])


def test_recalibration_never_falls_and_pools_by_how_many_there_are():
    risk = np.repeat([0.1, 0.2, 0.3], [1, 8, 1])
    wrong = np.array([1.0, *[0.0] * 6, 1.0, 1.0, 1.0])
    assert Recalibration.fit(risk, wrong)(np.array([0.1, 0.2, 0.3])).tolist() == pytest.approx([1 / 3, 1 / 3, 1 - 1e-5])


def test_few_positions_leave_no_empty_bin():
    """With fewer positions than bins the quantiles lie between two of them."""
    rng = np.random.default_rng(0)
    risk = rng.random(30)
    wrong = (rng.random(30) < 0.5).astype(float)
    fit = Recalibration.fit(risk, wrong)
    assert fit(risk).mean() == pytest.approx(wrong.mean(), rel=1e-4)  # least squares keeps the mean
    assert (np.diff(fit(np.sort(risk))) >= 0).all()


def test_the_same_risk_everywhere_is_one_bin():
    fit = Recalibration.fit(np.full(5, 0.3), np.array([1.0, 0, 0, 0, 0]))
    assert fit(np.array([0.0, 0.3, 1.0])).tolist() == pytest.approx([0.2] * 3)


def sample(seed: int, count: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """Risks that promise twice what they keep."""
    rng = np.random.default_rng(seed)
    risk = rng.random(count)
    return risk, (rng.random(count) < risk / 2).astype(float)


def test_recalibrated_confidence_itself_has_no_skill():
    fitted, unseen = judged(*sample(0)), judged(*sample(1))
    again = Recalibration.fit(fitted.confidence, fitted.wrong)(unseen.confidence)
    found = risk_figures(fitted, judged(unseen.confidence, unseen.wrong, head=again))
    for name in ("brier_skill", "log_loss_skill"):
        assert found[name] == pytest.approx({"estimate": 0, "low": 0, "high": 0}, abs=1e-9)
    assert found["positions"] == 3000
    assert found["share_wrong"] == pytest.approx(unseen.wrong.mean())


def test_skill_is_one_less_the_ratio_of_the_losses():
    fitted, unseen = judged(*sample(0)), judged(*sample(1))
    base = Recalibration.fit(fitted.confidence, fitted.wrong)(unseen.confidence)
    found = risk_figures(fitted, unseen)  # the raw confidence, twice too careful
    expected = 1 - ((unseen.confidence - unseen.wrong) ** 2).mean() / ((base - unseen.wrong) ** 2).mean()
    assert found["brier_skill"]["estimate"] == pytest.approx(expected)
    assert found["brier_skill"]["high"] < 0
    assert found["log_loss_skill"]["high"] < 0
    perfect = risk_figures(fitted, judged(unseen.confidence, unseen.wrong, head=unseen.wrong))
    assert perfect["brier_skill"]["estimate"] == pytest.approx(1)
    assert (perfect["auroc"], perfect["auroc_confidence"]) == (1.0, pytest.approx(found["auroc_confidence"]))


def test_risks_of_which_nothing_is_known_have_no_figures():
    some, none = judged(*sample(0)), judged(np.zeros(0), np.zeros(0))
    assert risk_figures(none, some) == {"positions": 0}
    assert risk_figures(some, none) == {"positions": 0}
    assert risk_figures(some, judged(some.confidence, np.ones_like(some.wrong))) == {"positions": 0}


def test_intervals_resample_prompts():
    fitted, (risk, wrong) = judged(*sample(0)), sample(1)
    many, one = (
        risk_figures(fitted, judged(risk, wrong, prompt=p))["brier_skill"]
        for p in (np.arange(3000), np.zeros(3000, int))
    )
    assert many["low"] < many["estimate"] < many["high"]
    assert one["low"] == one["estimate"] == one["high"]


def test_auroc_is_the_share_of_pairs_in_order():
    score, wrong = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0.0, 0.0, 1.0, 1.0])
    assert auroc(score, wrong) == pytest.approx(3 / 4)
    assert auroc(1 - score, wrong) == pytest.approx(1 / 4)


class Opinion(ScoringHead):
    """A head that says of the canvas what it is told to."""

    def __init__(self, gain, risk=0.5) -> None:
        super().__init__(HeadConfig("linear", NAMES))
        self.gain, self.risk = torch.as_tensor(gain).float(), torch.as_tensor(risk).float()

    def forward(self, features, rows, token, taps=()) -> Scores:
        blank = torch.zeros(rows.shape)
        blank[:, -4:] = self.risk.logit()
        gain = torch.zeros(rows.shape)
        gain[:, -4:] = self.gain
        return Scores(blank, gain)


def prepared(gain, *, eq7=None, beam=None, confidence=None, valid=None, reference=(0, 1, 1, 1)) -> Prepared:
    """States with a branch at each of four masked places behind a prompt of one."""
    states = len(gain)
    one = {
        "task": "bits", "tokens": [0, 2, 2, 2, 2], "reference": list(reference), "unique_answer": True, "opened": 1,
        "committed_round": [-1] * 4, "recent_confidence": [0.0] * 8, "recent_token": [-1] * 8, "spent": 0, "round": 1,
        "block_length": 4, "asked": [True] * 4, "branches": [],
    }  # fmt: skip
    batch = HeadData([one] * states, 2, None, 0.9, 4).batch(range(states))
    there = torch.ones(states, 4, dtype=torch.bool) if valid is None else torch.tensor(valid)
    batch = replace(
        batch,
        gain=torch.tensor(gain).float(),
        eq7=torch.tensor(eq7 or [[0.0] * 4] * states),
        beam=(torch.zeros(states, 4, dtype=torch.bool) if beam is None else torch.tensor(beam)) & there,
        log_confidence=torch.tensor(confidence or [[-1.0, -2.0, -3.0, -4.0]] * states),
        position=torch.where(there, torch.arange(1, 5), -1),
    )
    return PreparedBatches(GroupDenoiser(1, 4, certainty=0.99), [batch], taps=(), threshold=0.9)[0]


def choices(gains, one: Prepared, prompts=(0, 1, 2)) -> dict:
    return choice_figures(collect_choices(Opinion(gains), [one], prompts))


GAIN = [[1.0, 7.0, -3.0, 5.0], [2.0, 0.0, 0.0, 6.0]]


def test_regret_is_what_the_best_branch_gains_more_than_the_one_taken():
    found = choices([0.0, 1.0, 0.0, 0.5], prepared(GAIN))
    assert found["states"] == 2
    assert found["oracle_gain"]["estimate"] == pytest.approx((7 + 6) / 2)
    assert found["regret"]["estimate"] == pytest.approx((0 + 6) / 2)
    assert found["regret_confidence"]["estimate"] == pytest.approx((6 + 4) / 2)  # the first is the most confident
    assert found["regret_uniform"]["estimate"] == pytest.approx((7 - 2.5 + 6 - 2) / 2)
    assert found["top1_oracle"]["estimate"] == pytest.approx(1 / 2)


def test_the_beam_chooses_by_eq7_among_its_own():
    beam, eq7 = [[True, False, True, True]] * 2, [[0.5, 9.0, 0.7, 0.6], [0.5, 9.0, -torch.inf, 0.4]]
    found = choices([0.0, 9.0, 2.0, 1.0], prepared(GAIN, beam=beam, eq7=eq7))
    assert found["regret_beam"]["estimate"] == pytest.approx((7 - -3 + 6 - 2) / 2)  # the third, then the first
    assert found["top1_beam"]["estimate"] == pytest.approx(1 / 2)  # among the beam's own the head takes the third


def test_a_beam_without_any_cascade_keeps_the_most_confident():
    beam, eq7 = [[False, True, True, False]] * 2, [[-torch.inf] * 4] * 2
    found = choices([0.0] * 4, prepared(GAIN, beam=beam, eq7=eq7, confidence=[[-2.0, -0.5, -1.0, -3.0]] * 2))
    assert found["regret_beam"]["estimate"] == pytest.approx((0 + 6) / 2)


def test_rank_figures_are_taken_within_a_state():
    found = choices([3.0, 4.0, 1.0, 2.0], prepared([[3.0, 4.0, 1.0, 2.0], [2.0, 1.0, 4.0, 3.0]]))
    assert found["spearman"]["estimate"] == pytest.approx((1 - 1) / 2)
    assert choices([3.0, 4.0, 1.0, 2.0], prepared([[3.0, 4.0, 1.0, 2.0]]))["ndcg4"] == pytest.approx(1)
    assert choices([1.0, 2.0, 3.0, 4.0], prepared([[4.0, 3.0, 2.0, 1.0]]))["ndcg4"] < 0.8


def test_states_that_cannot_be_ranked_count_neither_as_good_nor_as_bad():
    found = choices([3.0, 4.0, 1.0, 2.0], prepared([[3.0, 4.0, 1.0, 2.0], [5.0] * 4]))
    assert found["ndcg4"] == pytest.approx(1)
    assert found["spearman"]["estimate"] == pytest.approx(1)


def test_branches_that_do_not_exist_are_not_chosen():
    found = choices([0.0, 9.0, 1.0, 0.0], prepared(GAIN, valid=[[True, False, True, True], [True, False, True, False]]))
    assert found["oracle_gain"]["estimate"] == pytest.approx((5 + 2) / 2)
    assert found["regret"]["estimate"] == pytest.approx((8 + 2) / 2)
    assert choices([0.0] * 4, prepared(GAIN, valid=[[True, False, False, False]] * 2)) == {"states": 0}


def test_a_prompt_with_more_states_is_one_draw():
    found = choices([0.0, 1.0, 0.0, 0.5], prepared(GAIN), prompts=(4, 4))
    assert found["regret"] == pytest.approx({"estimate": 3, "low": 3, "high": 3})


def test_risk_is_judged_at_known_positions_with_their_prompts():
    """The trunk says 0 at even odds everywhere; the reference is 0 at the first place alone."""
    found = collect_risk(Opinion([0.0] * 4, [0.1, 0.2, 0.3, 0.4]), [prepared(GAIN)], [5, 6])
    assert found.prompt.tolist() == [5] * 4 + [6] * 4
    assert found.wrong.tolist() == [0, 1, 1, 1] * 2
    assert found.head.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4] * 2)
    assert found.confidence.tolist() == pytest.approx([0.5] * 8, rel=1e-5)
    few = collect_risk(Opinion([0.0] * 4), [prepared(GAIN, reference=(-1, -1, 1, -1))], [5, 6])
    assert few.wrong.tolist() == [1, 1]
