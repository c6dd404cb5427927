"""From the quantile levels that a model has to those that are asked for."""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

PATHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""The quantiles that a model goes on from beyond its own horizon, each as if it had happened."""

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
    out: F32 = np.maximum.accumulate(ordered @ weights(have, want), axis=-1)  # but for rounding in order
    return out


def beyond(have: Sequence[float], want: Sequence[float]) -> list[float]:
    """The levels that are extrapolated."""
    return [level for level in want if not have[0] <= level <= have[-1]]


def mixed(ahead: F32, levels: Sequence[float]) -> F32:
    """(B, H, K) quantiles of what may come on one of P equally likely paths: (B, P, K, H) forecasts.

    Each value has the probability that its level stands for; levels need not be spaced evenly.
    """
    b, paths, _, steps = ahead.shape
    values = np.moveaxis(ahead, 3, 1).reshape(b, steps, -1)
    order = np.argsort(values, axis=2)
    values = np.take_along_axis(values, order, axis=2)
    weight = np.tile(_masses(levels) / paths, paths)[order]
    middle = np.cumsum(weight, axis=2) - weight / 2
    out = np.empty((b, steps, len(levels)), np.float32)
    for k, level in enumerate(levels):
        high = (middle < level).sum(axis=2, keepdims=True).clip(1, middle.shape[2] - 1)
        x, y, at, to = (
            np.take_along_axis(column, i, axis=2)[:, :, 0].astype(np.float64)
            for column in (values, middle)
            for i in (high - 1, high)
        )
        out[:, :, k] = x + np.clip((level - at) / (to - at), 0, 1) * (y - x)
    return out


def weights(have: Sequence[float], want: Sequence[float]) -> F32:
    """(K, Q) shares of the neighbours of each level; a level that is there is its own."""
    score = np.array([_NORMAL.inv_cdf(level) for level in have])
    out = np.zeros((len(have), len(want)), np.float32)
    for column, level in enumerate(want):
        z = _NORMAL.inv_cdf(level)
        right = min(max(int(np.searchsorted(score, z)), 1), len(have) - 1)
        share = (z - score[right - 1]) / (score[right] - score[right - 1])
        out[right - 1, column] = 1 - share
        out[right, column] += share
    return out


def _masses(levels: Sequence[float]) -> NDArray[np.float64]:
    """(K,) the probability that each level stands for: half-way to its neighbours, ends to the end."""
    edges = np.concatenate([[0.0], (np.array(levels[1:]) + levels[:-1]) / 2, [1.0]])
    return np.diff(edges)
