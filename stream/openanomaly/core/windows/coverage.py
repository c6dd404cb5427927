"""How often values fall where their forecasts say: what is stated against what is observed."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.scoring import LEVELS

BANDS = {
    f"{upper - lower:.1f}": (i, -1 - i)
    for i, (lower, upper) in enumerate(zip(LEVELS, reversed(LEVELS), strict=True))
    if lower < upper
}
"""Stated share of values inside -> positions of the band's edges among LEVELS: `0.9` and `0.6`."""


def count(counts: Counter[str], y: NDArray[np.float64], quantiles: NDArray[np.float64]) -> None:
    """Count closed steps that had a forecast, and those inside of each band.

    An edge is inside: else a constant, whose quantiles are one value, would never be.

    Args:
        y: (n,) finite values.
        quantiles: (n, 5) of LEVELS; NaN rows where there was no forecast.
    """
    told = quantiles[:, len(LEVELS) // 2]
    counts["told"] += int(np.count_nonzero(told == told))
    for share, (low, high) in BANDS.items():
        inside = (y >= quantiles[:, low]) & (y <= quantiles[:, high])  # false where there is no forecast
        counts[f"inside {share}"] += int(np.count_nonzero(inside))
