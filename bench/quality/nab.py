"""NAB's score of alarms, after the benchmark's published definition (Lavin and Ahmad 2015; standard profile).

Every labelled window pays for its earliest alarm: most at its left edge, nothing at its right. An
alarm outside costs, less just behind a window than far from one. The first 15 % of a series (750
steps at most) are not counted. 0 is a detector without alarms, 100 every window found at its start.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

HIT, FALSE_ALARM, MISS = 1.0, 0.11, 1.0


def probation(steps: int) -> int:
    """Steps at the start of a series that are not counted."""
    return int(min(0.15 * steps, 750))


def _sigmoid(position: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(position > 3, -1.0, 2 / (1 + np.exp(5 * np.minimum(position, 4))) - 1)


def weights(steps: int, windows: Sequence[tuple[int, int]]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """What an alarm at each step is worth, and the window that holds it (-1: none).

    `windows` are first and last steps, ascending.
    """
    at = np.arange(steps)
    value, owner = np.full(steps, -1.0), np.full(steps, -1)
    for i, (left, right) in enumerate(windows):
        width = right - left + 1
        behind = at > right
        value[behind] = _sigmoid((at[behind] - right) / max(width - 1, 1))
        inside = (at >= left) & (at <= right)
        value[inside] = _sigmoid(-(right - at[inside] + 1) / width) / _sigmoid(np.array(-1.0))
        owner[inside] = i
    return value, owner


def raw_score(alarms: NDArray[np.bool_], windows: Sequence[tuple[int, int]]) -> float:
    """Unscaled score of one series; each of its windows that is missed costs MISS."""
    value, owner = weights(len(alarms), windows)
    at = np.flatnonzero(alarms)
    at = at[at >= probation(len(alarms))]
    outside = at[owner[at] < 0]
    total = FALSE_ALARM * float(value[outside].sum())
    for i in range(len(windows)):
        hits = value[at[owner[at] == i]]
        total += HIT * float(hits.max()) if hits.size else -MISS
    return total


def score(series: Sequence[tuple[NDArray[np.bool_], Sequence[tuple[int, int]]]]) -> float:
    """Score of many series, (alarms, windows) each, on the scale of 0 to 100."""
    count = sum(len(windows) for _, windows in series)
    raw = sum(raw_score(alarms, windows) for alarms, windows in series)
    return 100 * (raw + MISS * count) / ((HIT + MISS) * count)
