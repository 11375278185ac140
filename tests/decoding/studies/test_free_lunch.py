"""The knee of latency, and medians over resamples."""

import numpy as np
import pytest

from decoding.comparison.curves import resample
from decoding.studies.free_lunch import knee, medians_of


@pytest.mark.parametrize(
    ("slower", "found"),
    [([1.0, 1.1, 1.25, 1.3], 4), ([1.0, 1.0, 1.0, 1.0], 8), ([1.0, 1.26, 1.0, 1.0], 1), ([1.0, 1.2, 1.26, 1.1], 2)],
)
def test_the_knee_is_the_last_k_before_the_first_slow_one(slower, found):
    assert knee([1, 2, 4, 8], slower, 1.25) == found


def test_medians_are_those_of_the_resampled_values():
    values = np.array([5.0, 1.0, 3.0, 2.0, 9.0])
    weights = resample(5, resamples=30, seed=2)
    for line, median in zip(weights, medians_of(weights, values), strict=True):
        assert median == np.median(np.repeat(values, np.rint(5 * line).astype(int)))
