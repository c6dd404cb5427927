"""The scoring rules the plain way: one float64 array per statistic, fancy indexing, a sort per block.

What `bench/scoring.py` compares the product with. Same channels and same work per step; no slices,
no chunks, no layout for the cache.
"""

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.scoring import LEVELS
from openanomaly.core.scoring.levels import Z

LISTS, KEEP = 10, 4
F64 = NDArray[np.float64]


class ReferenceScorer:
    """Scores of all rows at defaults, one call per step."""

    def __init__(self, rows: int, block: int = 144, memory: int = 112, tolerance: float = 0.2) -> None:
        self.block, self.memory, self.tolerance = block, memory, tolerance
        self.age = np.zeros(rows, np.int64)
        self.top = np.full((LISTS, rows, KEEP), -np.inf)
        self.when = np.zeros((LISTS, rows, KEEP), np.int64)
        self.open = np.full((LISTS, rows), -np.inf)
        self.mean = np.zeros((4, rows))
        self.last, self.run = np.full(rows, np.nan), np.zeros(rows)

    def update(self, rows: NDArray[np.int64], y: F64, band: F64) -> F64:
        """Score of one step of `rows` (n,), forecasts `band` (n, 5)."""
        s, age = rows, self.age[rows]
        jitter = 1e-12 + 1e-9 * np.abs(y)
        z = _normal_score(y, band, np.maximum(self.mean[3, s] / 16, jitter))
        w12, w48 = np.maximum(2 / 13, 1 / (age + 1)), np.maximum(2 / 49, 1 / (age + 1))
        distance = y - self.mean[1, s]
        self.mean[0, s] += w12 * (y - self.mean[0, s])
        self.mean[1, s] += w48 * distance
        self.mean[2, s] += w12 * (z - self.mean[2, s])
        self.mean[3, s] += w48 * (np.abs(distance) - self.mean[3, s])
        self.run[s] = np.where(np.abs(y - self.last[s]) <= jitter, self.run[s] + 1, 0)
        self.last[s] = y
        error = y - band[:, 2]
        young = 0.1 * np.log(np.maximum(2500 / np.maximum(age, 50), 1))
        best = np.zeros(len(y))
        wide = 1 + 2 * self.tolerance + young
        for i, x in enumerate((y, self.mean[0, s], self.mean[1, s])):
            high, low = self._reference(2 * i, s), -self._reference(2 * i + 1, s)
            apart = (high < low) & np.isfinite(self.top[2 * i, s, 1])
            high = np.where(apart, self.top[2 * i, s, 0], high)
            low = np.where(apart, -self.top[2 * i + 1, s, 0], low)
            half = np.maximum((high - low) / 2, jitter)
            best = np.fmax(best, np.abs(x - (high + low) / 2) / (half * wide))
        narrow = 1 + self.tolerance + young
        best = np.fmax(best, np.abs(error) / (np.maximum(self._reference(6, s), 1e3 * jitter) * narrow))
        best = np.fmax(best, np.abs(self.mean[2, s]) / (np.maximum(self._reference(7, s), 0.05) * narrow))
        smallest = -self._reference(8, s)
        quiet = smallest / (np.maximum(self.mean[3, s], jitter) * (1 + 2.5 * self.tolerance + young))
        best = np.fmax(best, np.where(np.isfinite(smallest), quiet, 0))
        longest = np.maximum(self._reference(9, s), 6)
        best = np.fmax(best, self.run[s] / (longest * (1 + 5 * self.tolerance + young)))
        score = np.where(age >= 144, np.minimum(best, 10.0), np.nan)
        self._remember(s, y, error)
        return np.where(score < 1, score**4, score)

    def _reference(self, c: int, s: NDArray[np.int64]) -> F64:
        first, second, open_ = self.top[c, s, 0], self.top[c, s, 1], self.open[c, s]
        settled = np.isfinite(second)
        return np.where(settled, np.maximum(np.minimum(first, open_), second), np.maximum(first, open_))

    def _remember(self, s: NDArray[np.int64], y: F64, error: F64) -> None:
        m = self.mean[:, s]
        spread = np.where(self.age[s] >= 96, -m[3], -np.inf)
        now = (y, -y, m[0], -m[0], m[1], -m[1], np.abs(error), np.abs(m[2]), spread, self.run[s])
        for c, x in enumerate(now):
            self.open[c, s] = np.maximum(self.open[c, s], x)
        self.age[s] += 1
        done = s[self.age[s] % self.block == 0]
        if len(done):
            self._file(done)

    def _file(self, s: NDArray[np.int64]) -> None:
        number = self.age[s] // self.block
        value = np.concatenate([self.top[:, s], self.open[:, s, None]], axis=2)
        when = np.concatenate(
            [self.when[:, s], np.broadcast_to(number[None, :, None], (LISTS, len(s), 1))], axis=2
        )
        value[number[None, :, None] - when >= self.memory] = -np.inf
        order = np.argsort(-value, axis=2, kind="stable")[:, :, :KEEP]
        self.top[:, s] = np.take_along_axis(value, order, 2)
        self.when[:, s] = np.take_along_axis(when, order, 2)
        self.open[:, s] = -np.inf
        for i, x in enumerate((self.last[s], self.mean[0, s], self.mean[1, s])):
            self.open[2 * i, s], self.open[2 * i + 1, s] = x, -x


def _normal_score(y: F64, q: F64, floor: F64) -> F64:
    z = np.array(Z)
    row = np.arange(len(y))
    j = np.clip((y[:, None] > q).sum(axis=1) - 1, 0, len(LEVELS) - 2)
    part = np.clip((y - q[row, j]) / np.maximum(q[row, j + 1] - q[row, j], 1e-37), 0, 1)
    out = z[j] + part * (z[j + 1] - z[j])
    above, below = y - q[:, -1], y - q[:, 0]
    out = np.where(above > 0, z[-1] + above / np.maximum((q[:, -1] - q[:, 2]) / z[-1], floor), out)
    out = np.where(below < 0, z[0] + below / np.maximum((q[:, 2] - q[:, 0]) / z[-1], floor), out)
    limit = np.minimum(np.abs(y - q[:, 2]) / floor, 6)
    return np.clip(out, -limit, limit)
