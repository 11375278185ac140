"""Correlation and slope with bootstrap intervals, from weights over prompts (`decoding.comparison.curves.resample`)."""

from __future__ import annotations

import numpy as np

from decoding.comparison.curves import Array


def covariance(weights: Array, x: Array, y: Array) -> Array:
    """Weighted covariance in every resample [R]; the lines of `weights` sum to 1."""
    x, y = x - x.mean(), y - y.mean()  # keeps the differences exact where a column does not vary
    moment: Array = weights @ (x * y) - (weights @ x) * (weights @ y)
    return moment


def pearson(weights: Array, x: Array, y: Array) -> Array:
    """Pearson's r in every resample [R]: cov(x, y) / sqrt(var x var y); NaN where one of them does not vary."""
    below = np.sqrt(np.maximum(covariance(weights, x, x), 0) * np.maximum(covariance(weights, y, y), 0))
    return _ratio(covariance(weights, x, y), below)


def slope(weights: Array, x: Array, y: Array) -> Array:
    """Least-squares slope of y on x in every resample [R]: cov(x, y) / var x; NaN where x does not vary."""
    return _ratio(covariance(weights, x, y), covariance(weights, x, x))


def _ratio(above: Array, below: Array) -> Array:
    return np.divide(above, below, out=np.full_like(below, np.nan), where=below > 1e-12)
