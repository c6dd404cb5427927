"""Samples to steps: which samples count, and what each row gathered in each bucket."""

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.stale import is_stale
from openanomaly.core.windows.counters import rates
from openanomaly.core.windows.rows import LATEST_MS, NONE, Column, Columns, Rows

ROW_STATE = (
    Column("closed", "i8", NONE),  # every bucket up to this one is closed
    Column("open", "i8", NONE),  # the bucket that gathers, NONE where none does
    Column("gathered", "f8", 0),  # what it gathered, by the block's aggregate
    Column("count", "u4", 0),
    Column("last_ms", "i8", NONE),  # newest accepted timestamp
    Column("raw", "f8", float("nan")),  # newest value of a counter
    Column("raw_ms", "i8", NONE),
    Column("deadline_ms", "i8", NONE),  # wall clock at which a tick closes the open bucket
    Column("interval_ms", "f4", 0),  # learned cadence, 0 while unknown
)
"""State of a row besides what the catalogue holds; all of it changes with every step."""


@dataclass(frozen=True, slots=True)
class Cells:
    """What C (row, bucket) pairs gathered in one frame; rows ascend, buckets ascend within a row.

    `count` is 0 where samples moved the row's time without giving a value. `turn` is the position
    of the cell within its row, so cells of one turn have different rows.
    """

    row: Rows
    bucket: NDArray[np.int64]
    gathered: NDArray[np.float64]
    count: NDArray[np.int64]
    last_ms: NDArray[np.int64]
    turn: NDArray[np.int64]


def gather(
    state: Columns,
    row: Rows,
    timestamp_ms: NDArray[np.int64],
    value: NDArray[np.float64],
    is_rate: NDArray[np.bool_],
    step_ms: int,
    aggregate: str,
    counts: "Counter[str]",
) -> Cells:
    """Accept the samples of one frame, and gather them into cells.

    A sample not newer than its row's last one is a `duplicate` (same time) or `out_of_order`; one
    for a closed bucket is `late`. Those are counted and change nothing. Counter samples become
    rates against the sample before (`is_rate`, per row of the block).

    Args:
        row, timestamp_ms, value: (N,) samples, rows ascending, those of a row in order of arrival.
        counts: incremented per outcome; `accepted` is what went into windows. They add up to N.
    """
    row, timestamp_ms, value, valid, first = usable(state, row, timestamp_ms, value, is_rate, step_ms, counts)
    return _reduce(row, timestamp_ms, value, valid, first, step_ms, aggregate)


class Usable(NamedTuple):
    """Samples that move their row's time, (N,) each; only those that are `valid` have a value.

    `first` is where a new row begins.
    """

    row: Rows
    timestamp_ms: NDArray[np.int64]
    value: NDArray[np.float64]
    valid: NDArray[np.bool_]
    first: NDArray[np.bool_]


def usable(
    state: Columns,
    row: Rows,
    timestamp_ms: NDArray[np.int64],
    value: NDArray[np.float64],
    is_rate: NDArray[np.bool_],
    step_ms: int,
    counts: "Counter[str]",
) -> Usable:
    """Which samples count, as `gather` says; counters are rates."""
    row, timestamp_ms, value = _accept(state, row, timestamp_ms, value, step_ms, counts)
    first = _starts(row)
    valid = np.isfinite(value)
    if not valid.all():
        stale = int(is_stale(value).sum())
        counts["stale"] += stale
        counts["not_finite"] += int((~valid).sum()) - stale
    if is_rate.any() and (on := is_rate[row]).any():
        value, valid = _to_rates(state, row, timestamp_ms, value, valid, on, counts)
    counts["accepted"] += int(valid.sum())
    _learn_interval(state, row, timestamp_ms, first, step_ms, counts)
    return Usable(row, timestamp_ms, value, valid, first)


def is_time(timestamp_ms: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which timestamps can be taken."""
    timely: NDArray[np.bool_] = (timestamp_ms >= 0) & (timestamp_ms < LATEST_MS)
    return timely


def _starts(row: Rows) -> NDArray[np.bool_]:
    """Where a new row begins in a sorted column."""
    first = np.empty(row.size, bool)
    first[:1] = True
    np.not_equal(row[1:], row[:-1], out=first[1:])
    return first


def _accept(
    state: Columns,
    row: Rows,
    timestamp_ms: NDArray[np.int64],
    value: NDArray[np.float64],
    step_ms: int,
    counts: "Counter[str]",
) -> tuple[Rows, NDArray[np.int64], NDArray[np.float64]]:
    """Drop samples that are not newer than all before them in their row, or whose bucket is closed."""
    first = _starts(row)
    newest = state["last_ms"][row]
    is_absurd = ~is_time(timestamp_ms)
    is_late = (timestamp_ms // step_ms <= state["closed"][row]) & ~is_absurd
    bad = is_absurd | is_late
    if not first.all():
        # The newest acceptable timestamp before each sample of its row: a prefix maximum that starts
        # anew with each row, because the row's rank weighs more than any timestamp.
        key = (np.cumsum(first) << 42) + np.where(bad, 0, timestamp_ms + 1)
        prefix = np.maximum.accumulate(key)[:-1] & LATEST_MS
        newest[1:] = np.maximum(newest[1:], np.where(first[1:], NONE, prefix - 1))
    is_old = (timestamp_ms <= newest) & ~is_absurd
    bad |= is_old
    if not bad.any():
        return row, timestamp_ms, value
    is_late &= ~is_old
    same = int((is_old & (timestamp_ms == newest)).sum())
    counts["duplicate"] += same
    counts["out_of_order"] += int(is_old.sum()) - same
    counts["late"] += int(is_late.sum())
    counts["timestamp"] += int(is_absurd.sum())
    return row[~bad], timestamp_ms[~bad], value[~bad]


def _to_rates(
    state: Columns,
    row: Rows,
    timestamp_ms: NDArray[np.int64],
    value: NDArray[np.float64],
    valid: NDArray[np.bool_],
    on: NDArray[np.bool_],
    counts: "Counter[str]",
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Replace the counter samples (`on`) by rates; samples that give none become invalid."""
    use = np.flatnonzero(on & valid)
    if not use.size:
        return value, valid
    r, t, v = row[use], timestamp_ms[use], value[use]
    first = _starts(r)
    previous, previous_ms = np.empty(r.size), np.empty(r.size, np.int64)
    previous[1:], previous_ms[1:] = v[:-1], t[:-1]
    previous[first], previous_ms[first] = state["raw"][r[first]], state["raw_ms"][r[first]]
    found = rates(v, t, previous, previous_ms)
    last = np.append(first[1:], True)
    state["raw"][r[last]], state["raw_ms"][r[last]] = v[last], t[last]
    counts["counter_start"] += int(found.is_start.sum())
    counts["counter_reset"] += int(found.is_reset.sum())
    value, valid = value.copy(), valid.copy()
    value[use] = found.value
    odd = ~np.isfinite(found.value)
    counts["not_finite"] += int((odd & ~found.is_start & ~found.is_reset).sum())
    valid[use[odd]] = False
    return value, valid


def _learn_interval(
    state: Columns,
    row: Rows,
    timestamp_ms: NDArray[np.int64],
    first: NDArray[np.bool_],
    step_ms: int,
    counts: "Counter[str]",
) -> None:
    """Follow how often each row has samples, and note its newest timestamp.

    Counts the steps that a row should have had since its last sample, in the interval it had until then:
    what is learned of a gap must not excuse it.
    """
    start = np.flatnonzero(first)
    if not start.size:
        return
    rows, n = row[start], np.diff(np.append(start, row.size))
    newest = timestamp_ms[start + n - 1]
    last = state["last_ms"][rows]
    known = last > NONE
    since = np.where(known, last, timestamp_ms[start])
    samples = np.where(known, n, n - 1)
    seen = np.where(samples > 0, (newest - since) / np.maximum(samples, 1), 0.0)
    now = state["interval_ms"][rows]
    counts["missing_steps"] += _missing_steps(
        timestamp_ms, start, n, since, np.where(now > 0, now, np.inf), step_ms
    )
    # A gap counts as four intervals at most: silence is not a slower scrape.
    follow = now + 0.1 * (np.minimum(seen, 4.0 * now) - now)
    state["interval_ms"][rows] = np.where(samples > 0, np.where(now > 0, follow, seen), now)
    state["last_ms"][rows] = newest


def _missing_steps(
    timestamp_ms: NDArray[np.int64],
    start: NDArray[np.int64],
    n: NDArray[np.int64],
    since: NDArray[np.int64],
    interval_ms: NDArray[np.float32],
    step_ms: int,
) -> int:
    before = np.empty_like(timestamp_ms)
    before[1:] = timestamp_ms[:-1]
    before[start] = since
    steps = (timestamp_ms - before) / np.repeat(np.maximum(interval_ms, step_ms), n)
    return int((np.rint(steps[steps > 1.5]) - 1).sum())


def _reduce(
    row: Rows,
    timestamp_ms: NDArray[np.int64],
    value: NDArray[np.float64],
    valid: NDArray[np.bool_],
    first: NDArray[np.bool_],
    step_ms: int,
    aggregate: str,
) -> Cells:
    bucket = timestamp_ms // step_ms
    if first.all():
        return Cells(
            row,
            bucket,
            np.where(valid, 1.0 if aggregate == "count" else value, 0.0),
            valid.astype(np.int64),
            timestamp_ms,
            np.zeros(row.size, np.int64),
        )
    new = first.copy()
    new[1:] |= bucket[1:] != bucket[:-1]
    start = np.flatnonzero(new)
    end = np.append(start[1:], row.size) - 1
    count = np.add.reduceat(valid.astype(np.int64), start)
    lead = first[start]
    rank = np.arange(start.size)
    turn = rank - np.maximum.accumulate(np.where(lead, rank, 0))
    return Cells(
        row[start], bucket[start], _aggregate(value, valid, start, aggregate), count, timestamp_ms[end], turn
    )


def _aggregate(
    value: NDArray[np.float64], valid: NDArray[np.bool_], start: NDArray[np.int64], aggregate: str
) -> NDArray[np.float64]:
    """What each run of samples amounts to, ignoring the invalid ones; 0 where all are."""
    if aggregate in ("mean", "sum"):
        return np.add.reduceat(np.where(valid, value, 0.0), start)
    if aggregate == "count":
        return np.add.reduceat(valid.astype(np.float64), start)
    if aggregate == "last":
        position = np.where(valid, np.arange(value.size), -1)
        last = np.maximum.reduceat(position, start)
        return np.where(last >= 0, value[last], 0.0)
    ufunc, neutral = (np.minimum, np.inf) if aggregate == "min" else (np.maximum, -np.inf)
    out = ufunc.reduceat(np.where(valid, value, neutral), start)
    return np.where(np.isfinite(out), out, 0.0)


def merge(
    old: NDArray[np.float64],
    new: NDArray[np.float64],
    aggregate: str,
) -> NDArray[np.float64]:
    """The aggregate of two parts of one bucket, both with samples, the older first."""
    if aggregate == "last":
        return new
    if aggregate == "min":
        return np.minimum(old, new)
    if aggregate == "max":
        return np.maximum(old, new)
    return old + new


def finish(gathered: NDArray[np.float64], count: NDArray[np.uint32], aggregate: str) -> NDArray[np.float64]:
    """The value of a closed bucket."""
    return gathered / count if aggregate == "mean" else gathered
