"""Recent steps of many series: rings of one length, one for each row."""

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.frames import ScoreFrame
from openanomaly.core.windows.rows import Rows

STEP = np.dtype(
    [
        ("time_ms", "<i8"),
        ("value", "<f8"),
        ("median", "<f8"),
        ("lower", "<f8"),
        ("upper", "<f8"),
        ("score", "<f4"),
        ("reason", "u1"),
        ("flags", "u1"),
        ("_", "u2"),
    ]
)
"""A judged step: 48 bytes."""
_RAW = f"V{STEP.itemsize}"
Steps = NDArray[np.void]


def steps_of(frame: ScoreFrame) -> Steps:
    """(N,) STEP: the steps of a frame, in its order."""
    out = np.zeros(len(frame.row), STEP)
    out["time_ms"] = frame.timestamp_ms
    out["value"] = frame.value
    out["median"], out["lower"], out["upper"] = frame.expected.T
    out["score"] = frame.score
    out["reason"], out["flags"] = frame.reason, frame.flags
    return out


class Rings:
    """The last `length` steps of each of `rows` rows. Memory is taken as rows are first used."""

    def __init__(self, rows: int, length: int) -> None:
        self.length = length
        self._steps = np.zeros((rows, length), STEP)
        self._raw = self._steps.view(_RAW)  # copied as bytes: field by field takes seven times as long
        self._count = np.zeros(rows, np.int64)

    @property
    def row_bytes(self) -> int:
        return self.length * STEP.itemsize + self._count.itemsize

    def put(self, rows: Rows, steps: Steps) -> None:
        """One more step of each of `rows`, which must differ from one another."""
        self._raw[rows, self._count[rows] % self.length] = steps.view(_RAW)
        self._count[rows] += 1

    def of(self, row: int) -> Steps:
        """The steps of a row, oldest first."""
        count = int(self._count[row])
        if count <= self.length:
            return self._steps[row, :count].copy()
        return np.roll(self._steps[row], -(count % self.length))

    def replace(self, row: int, steps: Steps) -> None:
        """Let a row begin with `steps`, oldest first."""
        steps = steps[-self.length :]
        self._steps[row, : len(steps)] = steps
        self._count[row] = len(steps)

    def clear(self, rows: Rows) -> None:
        self._count[rows] = 0
