"""Correlation and slope over resamples, against numpy's own on each resample written out."""

import numpy as np
import pytest

from decoding.comparison.curves import resample
from decoding.studies.bits.study import pearson, slope

DRAW = np.random.default_rng(1)
X = DRAW.normal(size=12)
Y = 2 * X + DRAW.normal(size=12)


def test_a_line_has_correlation_one_and_its_own_slope():
    weights = resample(12, resamples=5)
    assert pearson(weights, X, 3 * X + 1) == pytest.approx(np.ones(6))
    assert pearson(weights, X, -X) == pytest.approx(-np.ones(6))
    assert slope(weights, X, 3 * X + 1) == pytest.approx(np.full(6, 3.0))


def test_every_resample_is_the_plain_statistic_of_its_own_prompts():
    weights = resample(12, resamples=20)
    for line, r, b in zip(weights, pearson(weights, X, Y), slope(weights, X, Y), strict=True):
        again = np.repeat(np.arange(12), np.rint(12 * line).astype(int))
        assert r == pytest.approx(np.corrcoef(X[again], Y[again])[0, 1])
        assert b == pytest.approx(np.polyfit(X[again], Y[again], 1)[0])


def test_what_does_not_vary_has_no_correlation():
    weights = resample(12, resamples=3)
    assert np.isnan(pearson(weights, np.ones(12), Y)).all()
    assert np.isnan(slope(weights, np.ones(12), Y)).all()
    assert np.isnan(pearson(weights, X, np.ones(12))).all()
    assert slope(weights, X, np.ones(12)) == pytest.approx(np.zeros(4))
