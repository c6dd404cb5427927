"""Many steps of one row after another, judged and learned: the loops of steps.py turned around."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from openanomaly.core import kernels
from openanomaly.core.scoring.channels import Judging, Tables
from openanomaly.core.scoring.compiled.columns import exceed, load, refer, store
from openanomaly.core.scoring.compiled.steps import READ, WIDTH, factors_of, strip
from openanomaly.core.scoring.state import LISTS, Rows, State, allocate, places

if TYPE_CHECKING:
    from openanomaly.core.scoring.scorer import Judged


@kernels.jit(error_model="numpy")
def _run(
    position: Any,
    end: Any,
    until: Any,
    rows: Any,
    bucket: Any,
    y: Any,
    band: Any,
    opened: Any,
    mean: Any,
    last: Any,
    run: Any,
    age: Any,
    told: Any,
    left: Any,
    start: Any,
    peak: Any,
    why: Any,
    top: Any,
    origin: Any,
    tables: Any,
    factors: Any,
    speaks: Any,
    warmup: Any,
    quiet_steps: Any,
    score: Any,
    raw: Any,
    reason: Any,
    flags: Any,
    lower: Any,
    upper: Any,
) -> None:
    record = np.empty((LISTS, WIDTH), np.float32)
    first = np.empty((LISTS, WIDTH), np.float32)
    second = np.empty((LISTS, WIDTH), np.float32)
    reference = np.empty((LISTS, WIDTH), np.float32)
    now = np.empty((LISTS, WIDTH), np.float32)
    means = np.empty((4, WIDTH), np.float32)
    for i in range(len(position)):
        t = position[i]
        if t >= end[i]:
            continue
        some = rows[t : t + 1]
        for k in range(LISTS):
            load(opened[k], some, record[k])
            load(top[0, k], some, first[k])
            load(top[1, k], some, second[k])
        for k in range(4):
            load(mean[k], some, means[k])
        block_end = until[some[0]]
        while t < end[i] and bucket[t] < block_end:
            for k in range(LISTS):
                reference[k, 0] = first[k, 0]
            refer(reference, second, record, 1)
            strip(
                some, bucket[t : t + 1], y[t : t + 1], band[:, t : t + 1], reference, now, means,
                last, run, age, told, left, start, peak, why, origin,
                tables, factors, speaks, warmup, quiet_steps,
                score[t : t + 1], raw[t : t + 1], reason[t : t + 1], flags[t : t + 1],
                lower[t : t + 1], upper[t : t + 1],
            )  # fmt: skip
            exceed(record, now, 1)
            t += 1
        for k in range(LISTS):
            store(opened[k], some, record[k])
        for k in range(4):
            store(mean[k], some, means[k])
        position[i] = t


class Runs:
    """Steps of rows, and how far each row has come.

    Attributes:
        position, end: (rows,) positions of the next step of each row, and behind its last one.
    """

    def __init__(
        self, rows: Rows, bucket: NDArray[np.int64], y: NDArray[np.float64], band: NDArray[np.floating]
    ) -> None:
        self.position = np.flatnonzero(np.diff(rows, prepend=-1))
        self.end = np.append(self.position[1:], rows.size)
        self._steps = (
            np.ascontiguousarray(rows),
            np.ascontiguousarray(bucket),
            np.ascontiguousarray(y),
            np.ascontiguousarray(band.T),
        )

    def judge(
        self,
        state: State,
        tables: Tables,
        judging: Judging,
        alert_score: float,
        quiet: int,
        out: "Judged",
    ) -> None:
        """Go on in every row to the end of its open block, or of its steps."""
        _run(
            self.position,
            self.end,
            state["until"],
            *self._steps,
            *(places(state[name]) for name in READ),
            (tables.weight_12, tables.weight_48, tables.young),
            factors_of(judging, alert_score),
            judging.speaks,
            judging.warmup,
            np.int32(quiet),
            out.score,
            out.raw,
            out.reason,
            out.flags,
            out.lower,
            out.upper,
        )


@kernels.WINDOWS.compiles
def _warm_up() -> None:
    from openanomaly.core.scoring.scorer import Judged

    f = np.float32
    judging = Judging(f(0.2), np.ones((5, 1), f), -np.ones((5, 1), f), np.ones(7, bool), f(0), 0.0, 144)
    runs = Runs(np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1), np.zeros((1, 5)))
    runs.judge(allocate(1), Tables.make(), judging, 1.0, 24, Judged.empty(1))
