"""Counters to rates."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.series_column import SeriesKind

SUFFIXES = ("_total", "_count", "_sum", "_bucket")
RATE = 0x80
"""Bit of a row's kind: its samples become rates."""


def wants_rate(transform: str, kind: int, name: str) -> bool:
    """Whether a series is a counter: what metadata say, else what its name says."""
    if transform != "auto":
        return transform == "rate"
    if kind == SeriesKind.COUNTER:
        return True
    if kind == SeriesKind.GAUGE:
        return False
    # Histograms and summaries: their parts are counters, but a summary's quantiles are not.
    return name.endswith(SUFFIXES)


class Rates(NamedTuple):
    """What became of N counter samples: a rate per second, or NaN and why."""

    value: NDArray[np.float64]
    is_start: NDArray[np.bool_]
    is_reset: NDArray[np.bool_]


def rates(
    value: NDArray[np.float64],
    timestamp_ms: NDArray[np.int64],
    previous: NDArray[np.float64],
    previous_ms: NDArray[np.int64],
) -> Rates:
    """Increase per second since the previous sample of the same counter, (N,) each.

    The first sample (`previous` is NaN) has none. A counter that fell was reset: how far it had come
    before is unknown, so it gives no sample, never a negative one or a zero.
    """
    is_start = np.isnan(previous)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        is_reset = value < previous
        rate = (value - previous) / ((timestamp_ms - previous_ms) / 1000.0)
    rate[is_start | is_reset] = np.nan
    return Rates(rate, is_start, is_reset)
