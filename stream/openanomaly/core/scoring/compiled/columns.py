"""Columns of memory of some rows, where loops find them together, and what they are compared with."""

from typing import Any

import numpy as np

from openanomaly.core import kernels
from openanomaly.core.scoring.compiled.levels import fmost, least, most
from openanomaly.core.scoring.state import LISTS

_ZERO, _INF = np.float32(0), np.float32(np.inf)
_RANGES = 3
"""Lists of highs; behind them as many of lows, negated. The others are one-sided."""


@kernels.jit(error_model="numpy")
def load(column: Any, rows: Any, out: Any) -> None:
    n = len(rows)
    if rows[n - 1] - rows[0] + 1 == n:
        out[:n] = column[rows[0] : rows[0] + n]
    else:
        for i in range(n):
            out[i] = column[np.uint64(rows[i])]


@kernels.jit(error_model="numpy")
def store(column: Any, rows: Any, values: Any) -> None:
    n = len(rows)
    if rows[n - 1] - rows[0] + 1 == n:
        column[rows[0] : rows[0] + n] = values[:n]
    else:
        for i in range(n):
            column[np.uint64(rows[i])] = values[i]


@kernels.jit(error_model="numpy")
def refer(first: Any, second: Any, record: Any, n: int) -> None:
    """What n rows are compared with, into `first`, (LISTS, n): the second largest of all blocks, the open one
    included. Where the lows of a range lie above its highs, the largest of each side: see `uncross` in
    channels.py."""
    for k in range(_RANGES):
        for i in range(n):
            top, bottom = first[k, i], first[k + _RANGES, i]
            high = most(least(top, record[k, i]), second[k, i])
            low = most(least(bottom, record[k + _RANGES, i]), second[k + _RANGES, i])
            if not (high + low < _ZERO and abs(top + bottom) < _INF):
                first[k, i], first[k + _RANGES, i] = high, low
    for k in range(2 * _RANGES, LISTS):
        for i in range(n):
            first[k, i] = most(least(first[k, i], record[k, i]), second[k, i])


@kernels.jit(error_model="numpy")
def exceed(record: Any, now: Any, n: int) -> None:
    """Take what n rows have now into the maxima of their open blocks, (LISTS, n)."""
    for k in range(LISTS):
        for i in range(n):
            record[k, i] = fmost(now[k, i], record[k, i])
