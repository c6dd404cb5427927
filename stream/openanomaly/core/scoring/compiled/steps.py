"""One step of each row, judged and learned: channels.py, and what `Scorer` does around it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from openanomaly.core import kernels
from openanomaly.core.frames import ScoreFlag
from openanomaly.core.scoring.channels import (
    CAP,
    HALF,
    JITTER,
    JITTER_32,
    JITTER_ABSOLUTE,
    JITTER_FORECAST,
    LARGEST,
    RUN_FLOOR,
    SIGMA_FLOOR,
    SPREAD_FROM,
    SURPRISE_FLOOR,
    SURPRISE_FROM,
    YOUNG_STEPS,
    Judging,
    Tables,
)
from openanomaly.core.scoring.compiled.columns import exceed, load, refer, store
from openanomaly.core.scoring.compiled.levels import fmost_of_any, least, most, normal_score
from openanomaly.core.scoring.reason import ERROR, QUIET
from openanomaly.core.scoring.state import LISTS, Rows, State, allocate, places

F32 = NDArray[np.float32]

_F = np.float32
_ZERO, _ONE, _NAN, _INF = _F(0), _F(1), _F(np.nan), _F(np.inf)
_HUGE = np.finfo(np.float32).max
_STRIP = 256
WIDTH = _STRIP + 16
"""Of a strip in memory: no power of two."""
_START, _OPEN, _END, _YOUNG, _NO_FORECAST = (
    np.uint8(f)
    for f in (
        ScoreFlag.START | ScoreFlag.OPEN,
        ScoreFlag.OPEN,
        ScoreFlag.END,
        ScoreFlag.YOUNG,
        ScoreFlag.NO_FORECAST,
    )
)


@kernels.jit(error_model="numpy")
def _relative(y: float, origin: float) -> Any:
    d = y - origin
    d = LARGEST if d > LARGEST else (-LARGEST if d < -LARGEST else d)
    return np.float32(d)


@kernels.jit(error_model="numpy")
def _range(high: Any, low: Any, jitter: Any, wide: Any) -> Any:
    """Middle and half width of [-low, high], widened."""
    return (high - low) * HALF, most((high + low) * HALF, jitter) * wide


@kernels.jit(error_model="numpy")
def strip(
    rows: Any,
    bucket: Any,
    y_of: Any,
    band: Any,
    reference: Any,
    now: Any,
    mean: Any,
    last: Any,
    run: Any,
    age_of: Any,
    told_of: Any,
    left: Any,
    start: Any,
    peak: Any,
    why: Any,
    origin_of: Any,
    tables: Any,
    factors: Any,
    speaks: Any,
    warmup: Any,
    quiet_steps: Any,
    out_score: Any,
    out_raw: Any,
    out_reason: Any,
    out_flags: Any,
    out_lower: Any,
    out_upper: Any,
) -> None:
    weight_12, weight_48, young = tables
    (
        wide_value, wide_limit, wide_quiet, wide_froze,
        above, below, reach_above, reach_below, alert, named_from,
    ) = factors  # fmt: skip
    for i in range(len(rows)):
        r = np.uint64(rows[i])
        y, origin = y_of[i], origin_of[r]
        age, told = age_of[r], told_of[r]
        x = _relative(y, origin)
        q0, q1 = _relative(band[0, i], origin), _relative(band[1, i], origin)
        q2 = _relative(band[2, i], origin)
        q3, q4 = _relative(band[3, i], origin), _relative(band[4, i], origin)
        jitter = np.float32(least(abs(y), LARGEST) * JITTER + JITTER_ABSOLUTE)
        jitter += abs(x) * JITTER_32
        deviation = x - q2
        is_told = deviation == deviation

        # The means and the run move on to this step.
        at_age, at_told = min(age, YOUNG_STEPS), min(told, YOUNG_STEPS)
        m0, m1, m2, m3 = mean[0, i], mean[1, i], mean[2, i], mean[3, i]
        floor = most(m3 * SIGMA_FLOOR, jitter)
        z = normal_score(x, q0, q1, q2, q3, q4, floor) if is_told else _ZERO
        distance = x - m1
        m0 += (x - m0) * weight_12[at_age]
        m1 += distance * weight_48[at_age]
        m2 += (z - m2) * weight_12[at_told]
        m3 += (abs(distance) - m3) * weight_48[at_age]
        mean[0, i], mean[1, i], mean[2, i], mean[3, i] = m0, m1, m2, m3
        length = run[r] + _ONE if abs(x - last[r]) <= jitter else _ZERO
        run[r], last[r] = length, x

        now[0, i], now[1, i], now[2, i] = x, m0, m1
        now[3, i], now[4, i], now[5, i] = -x, -m0, -m1
        now[6, i], now[9, i] = abs(deviation), length
        now[7, i] = abs(m2) if told >= SURPRISE_FROM else -_INF
        now[8, i] = -m3 if age >= SPREAD_FROM else -_INF
        widening, sure = young[at_age], young[at_told]

        wide = widening + wide_value
        first_middle, first_half = _range(reference[0, i], reference[3, i], jitter, wide)
        s0 = (x - first_middle) / first_half
        middle, half = _range(reference[1, i], reference[4, i], jitter, wide)
        s1 = (m0 - middle) / half
        middle, half = _range(reference[2, i], reference[5, i], jitter, wide)
        s2 = (m1 - middle) / half
        error = reference[6, i]
        error_limit = most(error, jitter * JITTER_FORECAST) * (sure + wide_limit)
        s3 = deviation / error_limit
        s4 = m2 / (most(reference[7, i], SURPRISE_FLOOR) * (sure + wide_limit))
        if told < warmup or error == -_INF:
            s3 = s4 = _ZERO
            error_limit = _NAN
        c0 = fmost_of_any(s0 * above, s0 * below) if speaks[0] else _ZERO
        c1 = fmost_of_any(s1 * above, s1 * below) if speaks[1] else _ZERO
        c2 = fmost_of_any(s2 * above, s2 * below) if speaks[2] else _ZERO
        c3 = fmost_of_any(s3 * above, s3 * below) if speaks[3] else _ZERO
        c4 = fmost_of_any(s4 * above, s4 * below) if speaks[4] else _ZERO
        smallest = -reference[8, i]
        smallest = _ZERO if abs(smallest) == _INF else smallest
        c5 = smallest / (most(m3, jitter) * (widening + wide_quiet)) if speaks[5] else _ZERO
        longest = most(reference[9, i], RUN_FLOOR) * (widening + wide_froze)
        c6 = length / longest if speaks[6] else _ZERO
        ratio = fmost_of_any(
            fmost_of_any(fmost_of_any(c0, c1), fmost_of_any(c2, c3)),
            fmost_of_any(c4, fmost_of_any(c5, c6)),
        )
        ratio = least(most(ratio, _ZERO), CAP)

        # Where the channels of one step, value and error, would say 1.
        lower = upper = np.nan
        if below != 0:
            edge = first_middle + first_half * reach_below if speaks[0] else _NAN
            if speaks[ERROR]:
                edge = fmost_of_any(edge, q2 + error_limit * reach_below)
            lower = np.float64(edge) + origin
        if above != 0:
            edge = first_middle + first_half * reach_above if speaks[0] else _NAN
            if speaks[ERROR]:
                edge = -fmost_of_any(-edge, -(q2 + error_limit * reach_above))
            upper = np.float64(edge) + origin
        if lower > upper:  # no value would be normal to both
            lower = upper = (lower + upper) / 2
        out_lower[i], out_upper[i] = lower, upper

        age_of[r] = age + 1
        if is_told:
            told_of[r] = told + 1

        raw = ratio if age >= warmup else _NAN
        score = raw * raw
        score *= score
        if not raw < _ONE:
            score = raw
        reason = np.uint8(0)
        if score >= named_from:
            channel, side = (c0, c1, c2, c3, c4, c5, c6), (s0, s1, s2, s3, s4)
            spoke, loudest = 0, -_INF
            for k in range(7):
                c = channel[k]
                c = -_ONE if c != c else least(c, _HUGE)
                if c > loudest:
                    spoke, loudest = k, c
            is_below = spoke < QUIET and side[min(spoke, QUIET - 1)] < 0
            reason = np.uint8(1 + 2 * spoke + (1 if is_below else 0))

        flags = np.uint8(0)
        is_high, rest = score > alert, left[r]
        if is_high or rest > 0:
            after = quiet_steps if is_high else rest - 1
            left[r] = after
            is_first = is_high and not rest > 0
            flags = _START if is_first else (_OPEN if after > 0 else _END)
            if is_first:
                start[r] = bucket[i]
                peak[r] = -_INF
            if score > peak[r]:
                peak[r], why[r] = score, reason
        if age < YOUNG_STEPS:
            flags |= _YOUNG
        if not is_told:
            flags |= _NO_FORECAST
        out_score[i], out_raw[i], out_reason[i], out_flags[i] = score, raw, reason, flags


@kernels.jit(error_model="numpy")
def _judge(
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
    # In strips of rows, copied place by place: the places of one row lie a power of two apart, and
    # would drive each other out of the cache.
    record = np.empty((LISTS, WIDTH), np.float32)
    reference = np.empty((LISTS, WIDTH), np.float32)
    now = np.empty((LISTS, WIDTH), np.float32)
    means = np.empty((4, WIDTH), np.float32)
    for begin in range(0, len(rows), _STRIP):
        end = min(begin + _STRIP, len(rows))
        n, some = end - begin, rows[begin:end]
        for k in range(LISTS):
            load(opened[k], some, record[k])
            load(top[0, k], some, reference[k])
            load(top[1, k], some, now[k])
        refer(reference, now, record, n)
        for k in range(4):
            load(mean[k], some, means[k])
        strip(
            some, bucket[begin:end], y[begin:end], band[:, begin:end], reference, now, means,
            last, run, age, told, left, start, peak, why, origin,
            tables, factors, speaks, warmup, quiet_steps,
            score[begin:end], raw[begin:end], reason[begin:end], flags[begin:end],
            lower[begin:end], upper[begin:end],
        )  # fmt: skip
        exceed(record, now, n)
        for k in range(LISTS):
            store(opened[k], some, record[k])
        for k in range(4):
            store(mean[k], some, means[k])


def factors_of(judging: Judging, alert_score: float) -> tuple[Any, ...]:
    """What options are to the loops."""
    t = judging.tolerance
    above, below = judging.above[0, 0], judging.below[0, 0]
    return (
        1 + 2 * t,
        1 + t,
        1 + _F(2.5) * t,
        1 + _F(5) * t,
        above,
        below,
        _F(1 / abs(float(above))) if above else _ZERO,
        _F(-1 / abs(float(below))) if below else _ZERO,
        _F(alert_score),
        _F(min(1.0, alert_score)),
    )


def judge(
    state: State,
    rows: slice | Rows,
    bucket: NDArray[np.int64],
    y: NDArray[np.float64],
    band: NDArray[np.floating],
    tables: Tables,
    judging: Judging,
    alert_score: float,
    quiet: int,
) -> tuple[F32, F32, NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]:
    """Judge one step of each of `rows`, whose block is open, and learn from it.

    Returns:
        (n,) each: score, raw, reason, flags, lower, upper as in `Judged`.
    """
    n = len(y)
    at = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else np.ascontiguousarray(rows)
    out = (
        np.empty(n, np.float32),
        np.empty(n, np.float32),
        np.empty(n, np.uint8),
        np.empty(n, np.uint8),
        np.empty(n),
        np.empty(n),
    )
    _judge(
        at,
        np.ascontiguousarray(bucket),
        np.ascontiguousarray(y),
        np.ascontiguousarray(band.T),
        *(places(state[name]) for name in READ),
        (tables.weight_12, tables.weight_48, tables.young),
        factors_of(judging, alert_score),
        judging.speaks,
        judging.warmup,
        np.int32(quiet),
        *out,
    )
    return out


READ = (
    "open", "mean", "last", "run", "age", "told", "left", "start", "peak", "reason", "top", "origin",
)  # fmt: skip


@kernels.WINDOWS.compiles
def _warm_up() -> None:
    judging = Judging(_F(0.2), np.ones((5, 1), _F), -np.ones((5, 1), _F), np.ones(7, bool), _F(0), 0.0, 144)
    judge(
        allocate(1), np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1), np.zeros((1, 5)),
        Tables.make(), judging, 1.0, 24,
    )  # fmt: skip
