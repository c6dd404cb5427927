"""From the quantile levels that a model has to those that are asked for."""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

_NORMAL = NormalDist()


def at_levels(forecast: F32, have: Sequence[float], want: Sequence[float]) -> F32:
    """(..., Q) forecasts at levels `want`, from (..., K) ones at levels `have`.

    Quantiles that cross are put in order first. Between two levels the value is interpolated, beyond
    the outermost pair extrapolated, both straight in normal scores: exact for a normal distribution,
    and each level is independent of the others that are asked for.

    Args:
        forecast: (..., K), by `have` along the last axis.
        have: K levels in (0, 1), ascending, at least 2.
        want: Q levels in (0, 1), ascending.
    """
    ordered = np.sort(forecast, axis=-1)
    place = {level: i for i, level in enumerate(have)}
    if all(level in place for level in want):
        return ordered[..., [place[level] for level in want]]
    out: F32 = np.maximum.accumulate(ordered @ _weights(have, want), axis=-1)  # but for rounding in order
    return out


def beyond(have: Sequence[float], want: Sequence[float]) -> list[float]:
    """The levels that are extrapolated."""
    return [level for level in want if not have[0] <= level <= have[-1]]


def _weights(have: Sequence[float], want: Sequence[float]) -> F32:
    """(K, Q) shares of the neighbours of each level."""
    score = np.array([_NORMAL.inv_cdf(level) for level in have])
    out = np.zeros((len(have), len(want)), np.float32)
    for column, level in enumerate(want):
        z = _NORMAL.inv_cdf(level)
        right = min(max(int(np.searchsorted(score, z)), 1), len(have) - 1)
        share = (z - score[right - 1]) / (score[right] - score[right - 1])
        out[right - 1, column] = 1 - share
        out[right, column] += share
    return out
