"""Samples of different rows to closed steps."""

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openanomaly.core import kernels
from openanomaly.core.kernels import jit
from openanomaly.core.stale import STALE_BITS
from openanomaly.core.windows.rows import LATEST_MS, NONE, STATE_PAGE, Columns, Rows

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

_AGGREGATES = ("mean", "sum", "count", "last", "min", "max")
_MEAN, _SUM, _COUNT, _LAST, _MIN, _MAX = range(6)
_OUTCOMES = (
    "accepted", "duplicate", "out_of_order", "late", "timestamp", "stale", "not_finite",
    "counter_start", "counter_reset", "overflow_steps", "missing_steps",
)  # fmt: skip
_PAGE = np.uint64(STATE_PAGE)
_ACCEPTED, _SAME, _OLD, _LATE, _ABSURD, _STALE, _ODD, _START, _RESET, _OVERFLOW, _MISSING = range(11)


class Closed(NamedTuple):
    """Steps that closed: (n,) each; `before` is the bucket through which the row was closed before."""

    rows: Rows
    bucket: I64
    before: I64
    value: F64


@jit(error_model="numpy")
def _take(
    row_of: Any,
    ms_of: Any,
    value_of: Any,
    bits_of: Any,
    closed: Any,
    opened: Any,
    gathered: Any,
    count: Any,
    last_ms: Any,
    raw: Any,
    raw_ms: Any,
    deadline_ms: Any,
    interval_ms: Any,
    is_rate: Any,
    touched: Any,
    step_ms: Any,
    aggregate: Any,
    received_ms: Any,
    lateness_ms: Any,
    outcomes: Any,
    out_rows: Any,
    out_bucket: Any,
    out_before: Any,
    out_value: Any,
) -> int:
    found = 0
    bucket, begin = np.int64(-1), np.int64(-1)  # of the sample before: most have the same
    for i in range(len(row_of)):
        r, ms, value = np.uint64(row_of[i]), ms_of[i], value_of[i]
        if ms < 0 or ms >= LATEST_MS:
            outcomes[_ABSURD] += 1
            continue
        last = last_ms[r]
        if ms <= last:
            outcomes[_SAME if ms == last else _OLD] += 1
            continue
        if bucket < 0 or ms < begin or ms - begin >= step_ms:
            bucket = ms // step_ms
            begin = bucket * step_ms
        if bucket <= closed[r]:
            outcomes[_LATE] += 1
            continue

        is_valid = np.isfinite(value)
        if not is_valid:
            outcomes[_STALE if bits_of[i] == STALE_BITS else _ODD] += 1
        elif is_rate[r]:
            previous, previous_ms = raw[r], raw_ms[r]
            raw[r], raw_ms[r] = value, ms
            if previous != previous:
                outcomes[_START] += 1
                is_valid = False
            elif value < previous:
                outcomes[_RESET] += 1
                is_valid = False
            else:
                value = (value - previous) / ((ms - previous_ms) / 1000.0)
                if not np.isfinite(value):
                    outcomes[_ODD] += 1
                    is_valid = False
        if is_valid:
            outcomes[_ACCEPTED] += 1

        if last > NONE:
            now = interval_ms[r]
            seen = np.float64(ms - last)
            if now > 0:
                steps = seen / np.float64(max(now, np.float32(step_ms)))
                if steps > 1.5:
                    outcomes[_MISSING] += np.int64(np.rint(steps)) - 1
                reach = np.float64(np.float32(4.0) * now)
                seen = now + 0.1 * ((seen if seen < reach else reach) - now)
            interval_ms[r] = np.float32(seen)
        last_ms[r] = ms
        touched[r // _PAGE] = True

        was = opened[r]
        is_new = bucket > was
        if is_new and was != NONE:
            step = gathered[r] / count[r] if aggregate == _MEAN else gathered[r]
            if np.isfinite(step):
                out_rows[found], out_bucket[found], out_before[found] = row_of[i], was, closed[r]
                out_value[found] = step
                found += 1
            else:
                outcomes[_OVERFLOW] += 1
            closed[r] = was
        if is_new:
            gathered[r] = (1.0 if aggregate == _COUNT else value) if is_valid else 0.0
            count[r] = is_valid
        elif is_valid:
            if aggregate == _COUNT:
                value = 1.0
            if count[r] > 0:
                old = gathered[r]
                if aggregate == _MIN:
                    value = min(old, value)
                elif aggregate == _MAX:
                    value = max(old, value)
                elif aggregate != _LAST:
                    value = old + value
            gathered[r] = value
            count[r] += 1
        opened[r] = bucket if count[r] > 0 else NONE
        end = begin + step_ms
        deadline_ms[r] = max(received_ms + end - ms, end) + lateness_ms
    return found


def take(
    state: Columns,
    row: Rows,
    timestamp_ms: I64,
    value: F64,
    is_rate: NDArray[np.bool_],
    touched: NDArray[np.bool_],
    step_ms: int,
    aggregate: str,
    received_ms: int,
    lateness_ms: int,
    counts: "Counter[str]",
) -> Closed:
    """Twin of `buckets.gather` and `Block._turn` for samples of different rows.

    Args:
        row: (N,) ascending, each once.
        touched: per state page, set where a row changed.
    """
    n = len(row)
    outcomes = np.zeros(len(_OUTCOMES), np.int64)
    out = Closed(np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n))
    value = np.ascontiguousarray(value)
    found = _take(
        np.ascontiguousarray(row),
        np.ascontiguousarray(timestamp_ms),
        value,
        value.view(np.uint64),
        *(state[c.name] for c in state.columns),
        is_rate,
        touched,
        step_ms,
        _AGGREGATES.index(aggregate),
        received_ms,
        lateness_ms,
        outcomes,
        *out,
    )
    for name, count in zip(_OUTCOMES, outcomes.tolist(), strict=True):
        if count:
            counts[name] += count
    return Closed(out.rows[:found], out.bucket[:found], out.before[:found], out.value[:found])


@jit(error_model="numpy")
def _passing(ids: Any, rows: Any, bucket: Any, before: Any, every: Any, out: Any) -> int:
    found = 0
    same, rest = np.int64(-1), np.int64(0)
    for i in range(len(rows)):
        b, last = bucket[i], before[i]
        shift = np.int64(ids[np.uint64(rows[i]), 1] % np.uint64(every))
        if last == NONE or last == b - 1:
            if b != same:  # most rows close the same step
                same, rest = b, b % every
            is_due = rest + shift == every or rest + shift == 0
        else:
            is_due = (b + shift) // every != (last + shift) // every
        if is_due:
            out[found] = i
            found += 1
    return found


def passing(ids: NDArray[np.uint64], rows: Rows, bucket: I64, before: I64, every: int) -> I64:
    """Positions of the rows that passed the step at which a forecast is due; twin in `Block.due`."""
    out = np.empty(len(rows), np.int64)
    return out[: _passing(ids, rows, bucket, before, every, out)]


@kernels.WINDOWS.compiles
def _warm_up() -> None:
    from openanomaly.core.windows.buckets import ROW_STATE

    one, numbers, flags = np.zeros(1, np.int64), np.zeros(1), np.ones(1, bool)
    for times, values in ((one, numbers), (kernels.read_only(one), kernels.read_only(numbers))):
        state = Columns(ROW_STATE)
        take(state, one, times, values, flags, flags.copy(), 1000, "mean", 0, 0, Counter())
    passing(np.zeros((1, 2), np.uint64), one, one, one, 1)
