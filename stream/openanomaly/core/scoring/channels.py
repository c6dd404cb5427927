"""The seven channels: how far a step is beyond what each remembers.

Arrays are float32 with rows last. Only additions, multiplications, divisions and comparisons of
single elements: each is rounded in one way only, so a row's result does not depend on its place in
a call. (Vectorised logarithms and sums along an axis do not promise that.)
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.scoring.levels import MEDIAN, normal_score
from openanomaly.core.scoring.reason import CHANNELS, ERROR, FROZE, QUIET

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]

SPANS = (12, 48, 12, 48)
"""Of the exponential means: x, x, normal score, spread."""

YOUNG_STEPS = 2500
SPREAD_FROM = 96
"""Steps before the spread counts: an exponential mean over 48 has settled by then."""
SURPRISE_FROM = 24

RUN_FLOOR = np.float32(6.0)
CAP = np.float32(10.0)

# Jitter: differences that are no signal. Of a value, of a forecast (float16 beside a centre), and
# of a spread as a standard deviation of a forecast.
JITTER = 1e-9
JITTER_ABSOLUTE = 1e-12
JITTER_32 = np.float32(1.2e-7)
JITTER_FORECAST = np.float32(1e3)
SIGMA_FLOOR = np.float32(0.0625)
SURPRISE_FLOOR = np.float32(0.05)
HALF = np.float32(0.5)
LARGEST = 1e37


@dataclass(frozen=True, slots=True)
class Tables:
    """What depends on a row's age alone, up to YOUNG_STEPS: weights of means and the widening."""

    weight_12: F32
    weight_48: F32
    young: F32

    @classmethod
    def make(cls, young: float = 0.1) -> "Tables":
        age = np.arange(YOUNG_STEPS + 1, dtype=np.float64)
        widening = young * np.log(YOUNG_STEPS / np.maximum(age, 50.0))
        return cls(
            np.maximum(2 / 13, 1 / (age + 1)).astype(np.float32),
            np.maximum(2 / 49, 1 / (age + 1)).astype(np.float32),
            np.maximum(widening, 0).astype(np.float32),
        )


@dataclass(frozen=True, slots=True)
class Memory:
    """The state of n rows that a step reads and changes, rows last. Changed in place.

    Attributes: see FIELDS in state.py; `first` and `second` are (LISTS, n), the two largest block
    maxima.
    """

    open: F32
    mean: F32
    last: F32
    run: F32
    age: I32
    told: I32
    first: F32
    second: F32
    origin: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Judging:
    """Options of the channels as factors.

    Attributes:
        tolerance: beyond the reference, in ranges (value) or parts (the others).
        above, below: (5, 1) factors on the upper and lower side of the two-sided channels; 0 where
            a side does not speak.
        speaks: (7,) which channels do.
        min_deviation, min_relative: both must be exceeded.
        warmup: steps with a forecast before error and surprise speak.
    """

    tolerance: np.float32
    above: F32
    below: F32
    speaks: NDArray[np.bool_]
    min_deviation: np.float32
    min_relative: float
    warmup: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of n rows: the ratio, every channel's part (7, n) and side (5, n), and the edges of normal.

    `told` says which had a forecast.
    """

    ratio: F32
    channel: F32
    side: F32
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    told: NDArray[np.bool_]


def judge(
    m: Memory, y: NDArray[np.float64], band: NDArray[np.floating], tables: Tables, options: Judging
) -> Verdict:
    """Judge one step of n rows against their memory, then remember it.

    Args:
        y: (n,) finite.
        band: (n, 5) quantiles, NaN rows without a forecast.
    """
    n = len(y)
    x, quantile = _relative(y, m.origin), _relative(band.T, m.origin)
    jitter = _jitter(y, x)
    deviation = x - quantile[MEDIAN]
    told = np.isfinite(deviation)

    now = np.empty((10, n), np.float32)
    _advance(m, x, quantile, told, jitter, tables)
    now[0] = x
    now[1:3] = m.mean[:2]
    np.negative(now[:3], out=now[3:6])
    np.abs(deviation, out=now[6])
    np.abs(m.mean[2], out=now[7])
    np.negative(m.mean[3], out=now[8])
    now[9] = m.run

    reference = np.minimum(m.first, m.open)
    np.maximum(reference, m.second, out=reference)
    uncross(reference, m.first)
    widening = _look_up(tables.young, m.age)
    sure = _look_up(tables.young, m.told)

    # Two-sided channels, signed.
    side = np.empty((5, n), np.float32)
    middle = (reference[:3] - reference[3:6]) * HALF
    half = (reference[:3] + reference[3:6]) * HALF
    np.maximum(half, jitter, out=half)
    half *= widening + (1 + 2 * options.tolerance)
    np.subtract(now[:3], middle, out=side[:3])
    side[:3] /= half
    limit = np.empty((2, n), np.float32)
    np.maximum(reference[6], jitter * JITTER_FORECAST, out=limit[0])
    np.maximum(reference[7], SURPRISE_FLOOR, out=limit[1])
    limit *= sure + (1 + options.tolerance)
    side[3], side[4] = deviation, m.mean[2]
    side[3:] /= limit
    # Too few forecasts to know their errors, or none in memory.
    silent = m.told < options.warmup
    silent |= reference[6] == -np.inf
    if silent.any():
        side[3:, silent] = 0
        limit[0, silent] = np.nan

    channel = np.empty((len(CHANNELS), n), np.float32)
    np.multiply(side, options.above, out=channel[:5])
    np.fmax(channel[:5], side * options.below, out=channel[:5])
    _one_sided(channel, now, reference, jitter, widening, options.tolerance)
    for i in np.flatnonzero(~options.speaks):
        channel[i] = 0
    ratio: F32 = np.fmax.reduce(channel, axis=0)
    np.clip(ratio, 0, CAP, out=ratio)
    lower, upper = _edges(m, middle[0], half[0], quantile[MEDIAN], limit[0], options)
    if options.min_deviation > 0 or options.min_relative > 0:
        _spare(ratio, lower, upper, y, x, m, quantile[MEDIAN], told, options)
    _remember(m, now, told)
    return Verdict(ratio, channel, side, lower, upper, told)


def uncross(reference: F32, first: F32) -> None:
    """Where the lowest high lies below the highest low, two blocks have no value in common, as after a slow
    trend: the second largest of each side says nothing, and the largest hold. In place."""
    crossed = reference[:3] + reference[3:6] < 0
    if crossed.any():
        with np.errstate(invalid="ignore"):
            crossed &= np.abs(first[:3] + first[3:6]) < np.inf
        for side in (slice(3), slice(3, 6)):
            np.copyto(reference[side], first[side], where=crossed)


def _relative(y: NDArray[np.floating], origin: NDArray[np.float64]) -> F32:
    """Values relative to the origins, within what float32 can square-free compare."""
    d = y - origin
    np.clip(d, -LARGEST, LARGEST, out=d)
    return d.astype(np.float32)


def _jitter(y: NDArray[np.float64], x: F32) -> F32:
    size = np.abs(y)
    np.minimum(size, LARGEST, out=size)
    size *= JITTER
    size += JITTER_ABSOLUTE
    out: F32 = size.astype(np.float32)
    out += np.abs(x) * JITTER_32
    return out


def _look_up(table: F32, age: I32) -> F32:
    if age.min() >= YOUNG_STEPS:  # the usual case of an old page
        return table[-1:]
    return table[np.minimum(age, YOUNG_STEPS)]


def _advance(m: Memory, x: F32, quantile: F32, told: NDArray[np.bool_], jitter: F32, tables: Tables) -> None:
    """Move the means and the run on to this step."""
    floor = m.mean[3] * SIGMA_FLOOR
    np.maximum(floor, jitter, out=floor)
    z = normal_score(x, quantile, floor)
    if not told.all():
        z[~told] = 0
    distance = x - m.mean[1]
    for place, step, weight, age in (
        (0, x - m.mean[0], tables.weight_12, m.age),
        (1, distance, tables.weight_48, m.age),
        (2, z - m.mean[2], tables.weight_12, m.told),
        (3, np.abs(distance) - m.mean[3], tables.weight_48, m.age),
    ):
        step *= _look_up(weight, age)
        m.mean[place] += step
    same = np.abs(x - m.last) <= jitter
    m.run[:] = np.where(same, m.run + 1, 0)
    m.last[:] = x


def _one_sided(
    channel: F32, now: F32, reference: F32, jitter: F32, widening: F32, tolerance: np.float32
) -> None:
    """Quiet: the smallest spread in memory over this one. Froze: this run over the longest."""
    spread = -now[8]
    np.maximum(spread, jitter, out=spread)
    spread *= widening + (1 + np.float32(2.5) * tolerance)
    quiet = channel[QUIET]
    np.negative(reference[8], out=quiet)
    quiet[np.isinf(quiet)] = 0
    quiet /= spread
    longest = np.maximum(reference[9], RUN_FLOOR)
    longest *= widening + (1 + np.float32(5) * tolerance)
    np.divide(now[9], longest, out=channel[FROZE])


def _edges(
    m: Memory, middle: F32, half: F32, median: F32, error: F32, options: Judging
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the channels of one step, value and error, would say 1."""
    out = []
    for factor, inner, sign in ((options.below, np.fmax, -1), (options.above, np.fmin, 1)):
        side = abs(float(factor[0, 0]))
        if not side:
            out.append(np.full(len(half), np.nan))
            continue
        reach = np.float32(sign / side)
        edge = np.full(len(half), np.nan, np.float32)
        if options.speaks[0]:
            edge = middle + half * reach
        if options.speaks[ERROR]:
            edge = inner(edge, median + error * reach)
        out.append(edge.astype(np.float64) + m.origin)
    lower, upper = out
    crossed = lower > upper  # no value would be normal to both
    if crossed.any():
        lower[crossed] = upper[crossed] = (lower[crossed] + upper[crossed]) / 2
    return lower, upper


def _spare(
    ratio: F32,
    lower: NDArray[np.float64],
    upper: NDArray[np.float64],
    y: NDArray[np.float64],
    x: F32,
    m: Memory,
    median: F32,
    told: NDArray[np.bool_],
    options: Judging,
) -> None:
    """Hold down what is closer to the expected value than the pipeline cares for."""
    expected = np.where(told, median, m.mean[1])
    absolute = expected + m.origin
    least = np.maximum(options.min_relative * np.abs(absolute), options.min_deviation)
    part = np.abs(y - absolute) / least
    np.minimum(ratio, np.where(part < 1, part, CAP).astype(np.float32), out=ratio)
    np.minimum(lower, absolute - least, out=lower)
    np.maximum(upper, absolute + least, out=upper)


def _remember(m: Memory, now: F32, told: NDArray[np.bool_]) -> None:
    now[8, m.age < SPREAD_FROM] = -np.inf
    now[7, m.told < SURPRISE_FROM] = -np.inf
    np.fmax(m.open, now, out=m.open)
    np.add(m.age, 1, out=m.age)
    np.add(m.told, told, out=m.told)
