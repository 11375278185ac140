"""The statistics against figures worked out by hand, and against slow loops."""

from __future__ import annotations

import numpy as np
import pytest

from decoding.comparison.curves import (
    Curve,
    at_reference,
    aup,
    calibration,
    choose_dial,
    gap_closed,
    holm,
    interval,
    isotonic,
    p_value,
    ratio_of_means,
    resample,
)


def line(*values: float) -> np.ndarray:
    return np.array([values], dtype=float)


def curve(accuracy: np.ndarray, rounds: np.ndarray) -> Curve:
    return Curve(accuracy=accuracy, rounds=rounds, forwards=rounds, tokens=np.ones_like(rounds))


def test_resamples_start_with_the_sample_and_every_line_is_a_mean() -> None:
    weights = resample(5, resamples=50, seed=1)
    assert weights.shape == (51, 5)
    assert np.array_equal(weights[0], np.full(5, 0.2))
    assert np.allclose(weights.sum(1), 1)
    assert np.array_equal(weights, resample(5, resamples=50, seed=1))
    assert not np.array_equal(weights, resample(5, resamples=50, seed=2))


def test_no_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="prompts must be at least 1, got 0"):
        resample(0)


def test_the_interval_holds_the_middle_95_percent_of_the_resamples_and_not_the_sample() -> None:
    found = interval(np.concatenate([[50.0], np.arange(0, 101)]))
    assert found is not None
    assert (found.estimate, found.low, found.high) == (50, pytest.approx(2.5), pytest.approx(97.5))


def test_an_interval_leaves_out_resamples_without_a_value_and_is_none_without_a_figure() -> None:
    found = interval(np.array([2.0, np.nan, 1.0, 3.0]))
    assert found is not None
    assert 1 <= found.low < found.high <= 3
    assert interval(np.array([np.nan, 1.0, 2.0])) is None


def test_the_bootstrap_standard_error_is_that_of_a_mean() -> None:
    right = (np.arange(400) < 100).astype(float)
    draws = resample(400, seed=3) @ right
    assert draws[0] == pytest.approx(0.25)
    assert draws[1:].std() == pytest.approx(np.sqrt(0.25 * 0.75 / 400), rel=0.05)


def test_a_curve_averages_over_prompts_and_pairs_its_columns() -> None:
    right = np.array([[1.0, 0, 1, 1], [0, 0, 0, 1]])
    found = Curve.of(resample(4, resamples=20), right=right, rounds=2 * right, forwards=3 * right, tokens=right + 1)
    assert found.accuracy[0].tolist() == [0.75, 0.25]
    assert np.allclose(found.rounds, 2 * found.accuracy)
    assert np.allclose(found.forwards, 3 * found.accuracy)
    assert np.allclose(found.tokens, found.accuracy + 1)


def pool_adjacent(y: list[float]) -> list[float]:
    blocks: list[list[float]] = []
    for value in y:
        blocks.append([value])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return [float(np.mean(block)) for block in blocks for _ in block]


def test_the_isotonic_fit_pools_violators_in_order_of_rounds() -> None:
    # by rounds: .2, .6, .4, .9 -> the middle two are pooled to .5
    assert np.allclose(isotonic(line(4, 1, 3, 2), line(0.9, 0.2, 0.4, 0.6)), line(0.9, 0.2, 0.5, 0.5))


def test_the_isotonic_fit_equals_pool_adjacent_violators() -> None:
    accuracy = np.random.default_rng(0).random((30, 7))
    rounds = np.broadcast_to(np.arange(7.0), accuracy.shape)
    assert np.allclose(isotonic(rounds, accuracy), [pool_adjacent(list(y)) for y in accuracy])


def test_the_cheapest_setting_within_one_point_of_the_reference_is_chosen() -> None:
    found = curve(line(0.80, 0.89, 0.90, 0.95), line(2, 3, 5, 9))
    assert choose_dial(found, np.array([0.90])).tolist() == [1]  # exactly one point below still qualifies
    assert choose_dial(found, np.array([0.9001])).tolist() == [2]
    assert choose_dial(found, np.array([0.97])).tolist() == [-1]


def test_a_lucky_cheap_setting_does_not_qualify_after_pooling() -> None:
    found = curve(line(0.92, 0.80, 0.95), line(2, 3, 5))  # .92 and .80 pool to .86
    assert choose_dial(found, np.array([0.90])).tolist() == [2]


def test_rounds_at_reference_are_chosen_on_dev_and_measured_on_test() -> None:
    dev = curve(np.array([[0.5, 0.9], [0.9, 0.9], [0.5, 0.5]]), np.array([[2.0, 6], [2, 6], [2, 6]]))
    test = curve(np.array([[0.7, 0.8], [0.7, 0.8], [0.7, 0.8]]), np.array([[3.0, 7], [4, 8], [3, 7]]))
    reference = np.array([0.9, 0.9, 0.9])
    found = at_reference(dev, reference, test, reference)
    assert found.dial == 1
    assert found.rounds[:2].tolist() == [7, 4]  # the choice is made anew in every resample
    assert np.isnan(found.rounds[2])
    assert found.difference[:2] == pytest.approx([-0.1, -0.2])
    assert found.holds is False
    assert found.null_share == 0.5


def test_a_choice_that_loses_exactly_one_point_on_test_holds() -> None:
    dev, test = curve(np.full((2, 1), 0.9), np.full((2, 1), 3.0)), curve(np.full((2, 1), 0.89), np.full((2, 1), 3.0))
    assert at_reference(dev, np.full(2, 0.9), test, np.full(2, 0.90)).holds is True
    assert at_reference(dev, np.full(2, 0.9), test, np.full(2, 0.901)).holds is False
    assert at_reference(dev, np.full(2, 0.95), test, np.full(2, 0.9)).holds is None


def test_aup_by_hand() -> None:
    # reference 80 %; kept: (2, 90 %) and (4, 78 %); dropped: 74 % (more than 5 points below) and the slow point
    speed, accuracy = line(4, 2, 8, 0.5), line(0.78, 0.90, 0.74, 0.90)
    w80, w78 = np.exp(-3 * (1 - 80 / 90)), np.exp(-3 * (1 - 78 / 90))
    by_hand = 80 + 0.5 * (90 + 80 * w80) + 0.5 * 2 * (78 * w78 + 90)
    assert aup(speed, accuracy, np.array([0.8]), np.array([0.9])) == pytest.approx([by_hand])


def test_aup_of_an_arm_without_a_point_is_the_accuracy_of_the_reference() -> None:
    assert aup(line(9), line(0.2), np.array([0.8]), np.array([0.8])) == pytest.approx([80])
    assert aup(line(3), line(0.75), np.array([0.8]), np.array([0.8]))[0] > 80  # exactly five points below is kept
    assert aup(line(3), line(0.0), np.array([0.0]), np.array([0.0])) == pytest.approx([0])


def test_gap_closed_by_hand() -> None:
    assert gap_closed(np.array([10.0, 5]), np.array([8.0, 5]), np.array([6.0, 5])) == pytest.approx(
        [0.5, np.nan], nan_ok=True
    )


def test_ratio_of_means_is_no_mean_of_ratios() -> None:
    weights = resample(2, resamples=0)
    assert ratio_of_means(weights, np.array([1.0, 9]), np.array([1.0, 3])) == pytest.approx([2.5])
    assert np.isnan(ratio_of_means(weights, np.ones(2), np.zeros(2))).all()


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_p_is_twice_the_smaller_tail() -> None:
    draws = np.concatenate([[0.9], np.full(97, 0.9), np.full(2, 1.1)])
    assert p_value(draws, null=1.0) == pytest.approx(2 * 3 / 100)
    assert p_value(np.full(100, 1.0), null=1.0) == 1


def test_calibration_counts_only_clean_unforced_commits() -> None:
    weights = resample(4, resamples=200)
    wrong, clean = np.array([1.0, 0, 0, 0]), np.array([25.0, 25, 25, 25])
    unforced, commits = np.full(4, 40.0), np.full(4, 50.0)
    found = calibration(weights, bound=0.01, wrong=wrong, clean=clean, unforced=unforced, commits=commits)
    assert found is not None
    assert found.wrong.estimate == pytest.approx(0.01)
    assert found.wrong.high >= 0.03  # 3 / 100 at least
    assert found.unforced.estimate == pytest.approx(0.8)
    assert not found.kept
    loose = calibration(weights, bound=0.05, wrong=wrong, clean=clean, unforced=unforced, commits=commits)
    assert loose is not None
    assert loose.kept


def test_calibration_without_errors_still_has_an_upper_limit() -> None:
    some, none = np.full(10, 20.0), np.zeros(10)
    found = calibration(resample(10), bound=0.01, wrong=none, clean=some, unforced=some, commits=some)
    assert found is not None
    assert (found.wrong.estimate, found.wrong.high) == (0, pytest.approx(3 / 200))
    assert found.kept
    assert calibration(resample(10), bound=0.01, wrong=none, clean=none, unforced=some, commits=some) is None
