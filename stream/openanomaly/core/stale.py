"""Prometheus' staleness marker."""

import numpy as np
from numpy.typing import NDArray

# The exact bits of Prometheus' staleness marker (model/value/value.go, StaleNaN).
STALE_BITS = np.uint64(0x7FF0000000000002)
STALE = np.array([STALE_BITS]).view(np.float64)[0]


def is_stale(value: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which values are the staleness marker, and not just NaN."""
    stale: NDArray[np.bool_] = value.view(np.uint64) == STALE_BITS
    return stale
