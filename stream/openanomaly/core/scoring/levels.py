"""Quantile levels of a forecast as scoring reads it, and the normal score of a value among them."""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVELS = (0.05, 0.2, 0.5, 0.8, 0.95)
MEDIAN = 2

F32 = NDArray[np.float32]

Z = [NormalDist().inv_cdf(p) for p in LEVELS]
STEP = np.diff(Z).astype(np.float32)[:, None]
LOWEST = np.float32(Z[0])
OUTER = np.float32(1 / Z[-1])
TINY = np.float32(1e-37)
CLIP = np.float32(6.0)


def normal_score(x: F32, quantile: F32, floor: F32) -> F32:
    """(n,) how many standard deviations `x` (n,) lies from the median of its forecast.

    Piecewise linear between the quantiles (5, n), and beyond the outer two with the slope of a
    normal distribution; within +-6. `floor` (n,), > 0, is the smallest standard deviation that is
    believed: no forecast is so sure that a deviation far below the usual spread is a surprise.
    NaN where the quantiles are.
    """
    # The piecewise function as a sum of clipped pieces: no search and no gather.
    part = x - quantile[:-1]
    width = quantile[1:] - quantile[:-1]
    np.maximum(width, TINY, out=width)
    part /= width
    np.clip(part, 0, 1, out=part)
    part *= STEP
    z: F32 = part[0] + part[1]
    z += part[2]
    z += part[3]
    z += LOWEST
    deviation = x - quantile[MEDIAN]
    for outer, beyond in ((quantile[-1], np.maximum), (quantile[0], np.minimum)):
        sigma = np.abs(outer - quantile[MEDIAN])
        sigma *= OUTER
        np.maximum(sigma, floor, out=sigma)
        over = x - outer
        beyond(over, 0, out=over)
        over /= sigma
        z += over
    np.abs(deviation, out=deviation)
    deviation /= floor
    np.minimum(deviation, CLIP, out=deviation)
    np.minimum(z, deviation, out=z)
    np.negative(deviation, out=deviation)
    np.maximum(z, deviation, out=z)
    return z
