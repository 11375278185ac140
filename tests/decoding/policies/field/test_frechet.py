"""The Fréchet bound, and what it shares with a sum of risks and with the factor rule."""

import pytest

from decoding.policies.bounds import Factor, RiskSum
from decoding.policies.field.frechet import FrechetProfile
from decoding.state import Reason

EXPLOIT, FORCED = Reason.EXPLOIT, Reason.FORCED
CONFIDENCE = [0.7, 0.9, 0.8]  # summed risks with the last one twice: .2, .5, .9


@pytest.mark.parametrize(("margin", "chosen"), [(0.05, [0, 1, 2]), (0.15, [1, 2]), (0.45, [1, 2]), (0.55, [1])])
def test_the_longest_run_whose_joint_probability_beats_any_rival(committed, margin, chosen):
    assert committed(FrechetProfile(margin), CONFIDENCE) == dict.fromkeys(chosen, EXPLOIT)


def test_at_least_the_most_confident_position(committed):
    assert committed(FrechetProfile(0.85), CONFIDENCE) == {1: FORCED}


@pytest.mark.parametrize("confidence", [0.6, 0.85, 0.97])
def test_with_equal_confidences_it_is_the_factor_rule(committed, confidence):
    assert committed(FrechetProfile(0.0), [confidence] * 9) == committed(Factor(1.0), [confidence] * 9)


def test_it_keeps_within_the_sum_of_risks_of_the_same_bound(committed):
    assert committed(RiskSum(0.55), [0.9, 0.8, 0.76]) == dict.fromkeys(range(3), EXPLOIT)  # .1 + .2 + .24
    assert committed(FrechetProfile(0.45), [0.9, 0.8, 0.76]) == dict.fromkeys(range(2), EXPLOIT)  # .5, then .78


def test_a_margin_of_one_is_refused():
    with pytest.raises(ValueError, match=r"^frechet_margin must lie in \[0, 1\), got 1.0$"):
        FrechetProfile(1.0)
