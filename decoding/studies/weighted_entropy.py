"""The weighted-entropy bound of arXiv 2602.00286 on the error of a decoding order."""

from __future__ import annotations

import numpy as np

from decoding.comparison.curves import Array


def weighted_entropy(entropy: Array, *, alpha: float, growth: float, slack: float = 0.0) -> float:
    """Eq. 11 of arXiv 2602.00286: sum_t alpha (1 + lambda)^(T - t) H_t + b ((1 + lambda)^T - 1) / lambda.

    Args:
        entropy: H_1 .. H_T in nats, in the order of decoding.
        alpha: error per nat of entropy.
        growth: lambda, at least 0; at 0 the last term is b T.
        slack: b.
    """
    steps = len(entropy)
    rise = (1 + growth) ** np.arange(steps - 1, -1, -1)
    return float(alpha * (rise * entropy).sum() + slack * rise.sum())


def smallest_alpha(error: Array, entropy: Array, *, growth: float, slack: float) -> float:
    """The smallest alpha >= 0 with error_t <= alpha H_t + lambda sum_{s<t} error_s + b at every step of every order [orders, T].

    Infinite where an error is left at a step without entropy.

    Args:
        error, entropy: [orders, T], nats of each step.
        growth, slack: lambda and b, at least 0.
    """
    before = np.cumsum(error, axis=1) - error
    left = np.maximum(error - growth * before - slack, 0)
    ratio = np.divide(left, entropy, out=np.where(left > 0, np.inf, 0.0), where=entropy > 0)
    return float(ratio.max())


def ranks(values: Array) -> Array:
    """Place of each value in ascending order."""
    order: Array = np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(float)
    return order
