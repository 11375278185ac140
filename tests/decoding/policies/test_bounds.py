"""Rules that bound what a round may risk as a whole."""

import pytest
import torch

from decoding.policies.bounds import EntropyBound, Factor, RiskSum, counted_before, sum_before
from decoding.state import Reason
from tests.decoding.factor_bounds import BOUNDS

EXPLOIT, FORCED = Reason.EXPLOIT, Reason.FORCED


@pytest.mark.parametrize(("factor", "size"), [(1.0, 3), (0.5, 2)])
def test_factor_takes_the_largest_run(committed, factor, size):
    confidence = [0.85, 0.4, 0.95, 0.7, 0.9]  # (m + 1)(1 - c_m) = .10, .30, .60, 1.5
    best_first = [2, 4, 0, 3, 1]
    assert committed(Factor(factor), confidence) == dict.fromkeys(sorted(best_first[:size]), EXPLOIT)


@pytest.mark.parametrize(("m", "factor", "p_min"), [(m, f, p_min) for m, f, p_min, _, _ in BOUNDS])
def test_factor_asks_of_m_positions_what_the_table_says(committed, m, factor, p_min):
    assert len(committed(Factor(factor), [p_min + 2e-6] * m)) == m
    below = committed(Factor(factor), [p_min - 2e-6] * m)
    assert len(below) == max(1, m - 1)
    assert (m == 1) == (below == {0: FORCED})


def test_factor_forces_the_best_position_where_even_one_is_too_risky(committed):
    assert committed(Factor(1.0), [0.3, 0.49, 0.2]) == {1: FORCED}


def test_factor_accepts_equality(committed):
    assert committed(Factor(2.0), [1e-30]) == {0: EXPLOIT}  # (1 + 1) * 1 <= 2


def test_factor_does_not_copy_the_published_slip_on_the_last_candidate(committed):
    assert committed(Factor(1.0), [0.99, 0.98, 0.1]) == {0: EXPLOIT, 1: EXPLOIT}


@pytest.mark.parametrize(
    ("confidence", "size"),
    [([0.99, 0.98, 0.1], 3), ([0.99, 0.98, 0.1, 0.1], 2), ([0.3, 0.2], 2), ([0.3], 1), ([0.9] * 3, 3)],
)
def test_factor_last_copies_that_slip(committed, confidence, size):
    assert list(committed(Factor(1.0, factor_last=True), confidence)) == list(range(size))


def test_entropy_bound_leaves_the_largest_entropy_out_of_the_sum(committed):
    entropy = [0.02, 0.5, 0.001, 0.004]  # ascending sums without the last: 0, .001, .005, .025
    assert committed(EntropyBound(0.01), [0.5] * 4, entropy=entropy) == {0: EXPLOIT, 2: EXPLOIT, 3: EXPLOIT}
    assert committed(EntropyBound(0.0049), [0.5] * 4, entropy=entropy) == {2: EXPLOIT, 3: EXPLOIT}


def test_entropy_bound_takes_at_least_the_lowest(committed):
    assert committed(EntropyBound(0.0), [0.5, 0.5], entropy=[0.7, 0.6]) == {1: EXPLOIT}


def test_risk_sum_adds_up_the_risks_of_the_run(committed):
    confidence = [0.5, 0.875, 0.75]  # sums .125, .375, .875
    assert committed(RiskSum(0.375), confidence) == {1: EXPLOIT, 2: EXPLOIT}
    assert committed(RiskSum(0.374), confidence) == {1: EXPLOIT}
    assert committed(RiskSum(0.1), confidence) == {1: FORCED}


@pytest.mark.parametrize("make", [lambda: Factor(0.0), lambda: EntropyBound(-1.0), lambda: RiskSum(0.0)])
def test_settings_out_of_range_are_refused_by_name_rule_and_value(make):
    with pytest.raises(
        ValueError, match=r"^(factor|entropy_bound|risk_bound) must be (above|at least) 0, got -?[0-9.]+$"
    ):
        make()


def test_pairs_are_counted_as_a_running_sum_adds_them():
    """With ties, positions that are not summed, and whole numbers, so that both are exact in any order."""
    chosen = torch.Generator().manual_seed(0)
    value, order = (torch.randint(0, high, (5, 40), generator=chosen).float() for high in (100, 6))
    within = torch.rand(5, 40, generator=chosen) < 0.7
    value[~within] = torch.nan
    both = [each(value, order, within) for each in (counted_before, sum_before)]
    assert torch.equal(*both)
    assert both[0].max() > 100
