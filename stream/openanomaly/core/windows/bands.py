"""Forecasts in force: five quantiles for each of the next H steps of every row."""

import numpy as np
from numpy.typing import NDArray

from openanomaly.core import kernels
from openanomaly.core.frames import ForecastFrame
from openanomaly.core.scoring import LEVELS
from openanomaly.core.windows.compiled import bands as compiled
from openanomaly.core.windows.rows import NEVER, Column, Columns, Rows

_NONE = np.iinfo(np.int64).max
_LEVELS = np.array(LEVELS, np.float32)


class Bands:
    """Quantiles as float16 relative to the row's centre and scale: 10 bytes a step.

    They are not part of the checkpointed state: the forecasts topic is their log, and `oldest`
    says from which of its records on they can be rebuilt.
    """

    def __init__(self, horizon: int) -> None:
        self.horizon = horizon
        self.columns = Columns(
            [
                Column("quantile", "f2", 0, (horizon, len(LEVELS))),
                Column("center", "f4", 0),
                Column("scale", "f4", 0),
                Column("origin", "i8", NEVER),
                Column("offset", "i8", _NONE),
            ]
        )

    def grow(self, rows: int) -> None:
        self.columns.grow(rows)

    def reset(self, rows: Rows) -> None:
        self.columns["origin"][rows] = NEVER
        self.columns["offset"][rows] = _NONE

    def apply(self, frame: ForecastFrame, chosen: NDArray[np.bool_], offset: int) -> int:
        """Take over the `chosen` rows of a frame whose origin is newer; how many that were."""
        rows = frame.row.astype(np.int64)
        if frame.quantile.shape[2] != self.horizon or not np.array_equal(frame.level, _LEVELS):
            return 0
        if kernels.WINDOWS.ready():
            return compiled.apply(
                self.columns, rows, chosen, frame.quantile, frame.center, frame.scale, frame.origin, offset
            )
        new = np.flatnonzero(chosen)
        new = new[frame.origin[new] > self.columns["origin"][rows[new]]]
        if not new.size:
            return 0
        at = rows[new]
        self.columns["quantile"][at] = frame.quantile[new].transpose(0, 2, 1)
        self.columns["center"][at] = frame.center[new]
        self.columns["scale"][at] = frame.scale[new]
        self.columns["origin"][at] = frame.origin[new]
        self.columns["offset"][at] = offset
        return len(new)

    def at(self, rows: Rows, bucket: NDArray[np.int64], base: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, 5) quantiles for one bucket of each row in absolute units; NaN without a forecast."""
        if kernels.WINDOWS.ready():
            c = self.columns
            return compiled.quantiles_at(
                c["quantile"], c["center"], c["scale"], c["origin"], rows, bucket, base
            )
        step = bucket - self.columns["origin"][rows] - 1
        has = (step >= 0) & (step < self.horizon)
        flat = self.columns["quantile"].reshape(-1, len(LEVELS))
        found = flat.take(rows * self.horizon + np.where(has, step, 0), axis=0)
        # Level by level: numpy is slow where the innermost axis has five elements.
        q = found.T.astype(np.float64, order="C")
        q *= self.columns["scale"][rows]
        q += self.columns["center"][rows] + base
        if not has.all():
            q[:, ~has] = np.nan
        return q.T

    def oldest(self, rows: int, closed: NDArray[np.int64]) -> int | None:
        """Offset of the oldest forecast that still serves one of the first `rows` rows."""
        serving = closed < self.columns["origin"][:rows] + self.horizon
        offset = self.columns["offset"][:rows][serving]
        first = int(offset.min()) if offset.size else _NONE
        return None if first == _NONE else first

    def expire(self, before: int) -> None:
        """Forget forecasts from offsets before `before`: after a crash they would not be there either."""
        self.reset(np.flatnonzero(self.columns["offset"] < before))

    def has(self, rows: Rows | slice, closed: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(n,) which of `rows` have a forecast for the step after `closed`."""
        origin = self.columns["origin"][rows]
        found: NDArray[np.bool_] = (closed < origin + self.horizon) & (origin > NEVER)
        return found

    def count(self, rows: int, closed: NDArray[np.int64]) -> int:
        """How many of the first `rows` rows have a forecast for their next step."""
        return int(self.has(slice(rows), closed).sum())
