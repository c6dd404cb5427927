"""The engine that needs no model: the season, what the last steps say, and past errors' quantiles."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Mask = NDArray[np.bool_]
Index = NDArray[np.int64]

_CHUNK = 128  # rows at a time: the work arrays stay in the processor's cache
_CYCLES = 3
_MEANS = (1, 12)  # the predictors of the near future: the last step, and the mean of some last steps
_LIMIT = 1e6  # in spreads of the row; beyond it a value is an outlier whatever its size


class StatisticalAdapter:
    """Seasonal naive forecasts with the quantiles of their own past errors.

    For each row, by itself: find the season (autocorrelation), take the mean of the same phase in
    the last cycles, correct it by a regression on the last steps, and put around it the quantiles
    of the errors that this rule made inside the context. A row without a season does without the
    first two. Everything is done for a chunk of rows at once.
    """

    name = "statistical"
    max_context = 4096
    horizon_step = 1
    fixed_shapes = False
    device = "cpu"

    def __init__(self, threads: int = 1) -> None:
        """`threads` share a batch; each releases the interpreter for most of its time."""
        self._pool = ThreadPoolExecutor(threads, "statistical") if threads > 1 else None

    def predict(self, context: F32, horizon: int, quantiles: Sequence[float]) -> F32:
        levels = np.asarray(quantiles, np.float64)
        out = np.empty((len(context), horizon, len(levels)), np.float32)

        def work(at: int) -> None:
            out[at : at + _CHUNK] = _forecast(context[at : at + _CHUNK], horizon, levels)

        chunks = range(0, len(context), _CHUNK)
        for _ in map(work, chunks) if self._pool is None else self._pool.map(work, chunks):
            pass
        return out


def _forecast(context: F32, horizon: int, levels: NDArray[np.float64]) -> F32:
    seen = np.isfinite(context)
    filled = _fill(context, seen)
    anchor, scale = _location_and_spread(filled)
    y = np.clip((filled - anchor[:, None]) / scale[:, None], -_LIMIT, _LIMIT).astype(np.float32)
    rest, has, ahead = y, seen, np.zeros((len(y), horizon), np.float32)
    season = _season(y, seen)
    rows = np.flatnonzero(season)
    if rows.size:
        naive, known = _phase_mean(y[rows], seen[rows], season[rows], np.arange(y.shape[1]), 1)
        rows, naive, known, season = _worth_it(y, seen, rows, naive, known, season)
    if rows.size:
        steps = np.arange(y.shape[1], y.shape[1] + horizon)
        cycle = np.arange(horizon) // season[rows][:, None] + 1
        ahead[rows] = _phase_mean(y[rows], seen[rows], season[rows], steps, cycle)[0]
        rest, has = y.copy(), seen.copy()
        rest[rows] -= naive
        has[rows] &= known
    grid = _grid(horizon)
    error = _rest_quantiles(rest, has, grid, levels)  # (B, G, Q)
    flow = np.einsum("hg,bgq->bhq", _interpolation(grid, horizon), error)
    flow += ahead[:, :, None]
    out = flow * scale[:, None, None] + anchor[:, None, None]
    top = np.finfo(np.float32).max
    ordered: F32 = np.maximum.accumulate(np.clip(out, -top, top).astype(np.float32), axis=2)
    return ordered


def _fill(context: F32, seen: Mask) -> NDArray[np.float64]:
    """(B, T) with missing steps as the one before, the first ones as the one after; 0 for none at all."""
    steps = np.arange(context.shape[1])
    last = np.maximum.accumulate(np.where(seen, steps, -1), axis=1)
    source = np.where(last < 0, seen.argmax(axis=1)[:, None], last)
    filled = np.take_along_axis(context, source, axis=1).astype(np.float64)
    filled[~seen.any(axis=1)] = 0.0
    return filled


def _location_and_spread(filled: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(B,) medians and (B,) spreads that a few outliers do not move; the spread is never 0."""
    ordered = np.sort(filled, axis=1)
    n = filled.shape[1]
    edge = n // 50
    spread = ordered[:, n - 1 - edge] - ordered[:, edge]
    whole = np.maximum(np.abs(ordered[:, 0]), np.abs(ordered[:, -1]))
    spread = np.where(spread > 1e-7 * whole, spread, ordered[:, -1] - ordered[:, 0])
    return ordered[:, n // 2], np.where(spread > 0, spread, 1.0)


def _season(y: F32, seen: Mask) -> Index:
    """(B,) steps of the season of each row, 0 for none: the first high peak of its autocorrelation."""
    steps = y.shape[1]
    first = np.where(seen.any(axis=1), seen.argmax(axis=1), steps)
    length = steps - first
    if steps < 8:
        return np.zeros(len(y), np.int64)
    c = _detrended(np.clip(y, -1.5, 1.5), seen)
    size = 1 << (2 * steps - 1).bit_length()
    spectrum = np.fft.rfft(c, size)
    power = spectrum.real**2 + spectrum.imag**2
    r = np.fft.irfft(power, size)[:, : steps // 2 + 2]
    lag = np.arange(r.shape[1])
    r = r / np.maximum(r[:, :1], 1e-12)
    r *= length[:, None] / np.maximum(length[:, None] - lag, 1)  # fewer pairs at long lags
    dip = np.minimum.accumulate(r, axis=1)
    peak = np.zeros(r.shape, bool)
    mid = r[:, 1:-1]
    peak[:, 1:-1] = (mid > r[:, :-2]) & (mid >= r[:, 2:]) & (mid > 0.3) & (mid - dip[:, 1:-1] > 0.3)
    peak &= (lag >= 2) & (lag <= length[:, None] // 2)
    height = np.where(peak, r, 0.0)
    best = height.max(axis=1)
    found = np.where(peak & (r >= 0.9 * best[:, None]), lag, steps).min(axis=1)
    return np.where(best > 0, found, 0)


def _detrended(y: F32, seen: Mask) -> F32:
    """`y` without mean and slope, 0 where not seen."""
    n = np.maximum(seen.sum(axis=1), 1)
    steps = np.arange(y.shape[1], dtype=np.float32)
    t = np.where(seen, steps, 0)
    t = np.where(seen, t - (t.sum(axis=1) / n)[:, None], 0)
    c = np.where(seen, y, 0)
    c = np.where(seen, c - (c.sum(axis=1) / n)[:, None], 0)
    slope = (t * c).sum(axis=1) / np.maximum((t * t).sum(axis=1), 1e-12)
    out: F32 = (c - slope[:, None] * t).astype(np.float32)
    return out


def _phase_mean(y: F32, seen: Mask, season: Index, steps: Index, cycle: Index | int) -> tuple[F32, Mask]:
    """Means of the same phase in up to three cycles before `steps`, and where there was one.

    `cycle` says how many cycles back to begin: 1 inside the context, more for a season shorter
    than the way ahead.
    """
    total = np.zeros((len(y), len(steps)), np.float32)
    count = np.zeros(total.shape, np.float32)
    for back in range(_CYCLES):
        source = steps - (cycle + back) * season[:, None]
        at = np.maximum(source, 0)
        ok = (source >= 0) & np.take_along_axis(seen, at, axis=1)
        total += np.where(ok, np.take_along_axis(y, at, axis=1), 0)
        count += ok
    mean: F32 = np.divide(total, np.maximum(count, 1), dtype=np.float32)
    return mean, count > 0


def _worth_it(
    y: F32, seen: Mask, rows: Index, naive: F32, known: Mask, season: Index
) -> tuple[Index, F32, Mask, Index]:
    """The `rows` whose season foretells better than their middle, and than half a season before."""
    here, has = y[rows], seen[rows] & known
    half = np.arange(y.shape[1]) - np.maximum(season[rows] // 2, 1)[:, None]
    before = np.take_along_axis(here, np.maximum(half, 0), axis=1)
    n = np.maximum(has.sum(axis=1), 1)

    def miss(expected: Any) -> NDArray[np.float64]:
        error: NDArray[np.float64] = (
            np.where(has, np.minimum(np.abs(here - expected), 1.5), 0).sum(axis=1) / n
        )
        return error

    good = miss(naive) < 0.8 * np.minimum(miss(np.float32(0)), miss(before))
    return rows[good], naive[good], known[good], season


def _rest_quantiles(rest: F32, has: Mask, grid: Index, levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """(B, G, Q) quantiles of `rest`, `grid` steps ahead of its end.

    A step ahead is a regression on means of the last steps, one for each distance; around it lie
    the errors it made in the context.
    """
    n = has.sum(axis=1)
    mean = np.where(has, np.clip(rest, -1.5, 1.5), 0).sum(axis=1) / np.maximum(n, 1)
    c = np.where(has, rest - mean[:, None], 0).astype(np.float32)
    tame = np.clip(c, -1.5, 1.5)
    past = _means(tame, has)
    gram = np.einsum("kbt,lbt->bkl", past, past)
    gram += (np.trace(gram, axis1=1, axis2=2) * 0.01 + 1e-9)[:, None, None] * np.eye(len(_MEANS))
    out = np.empty((len(rest), len(grid), len(levels)))
    length = rest.shape[1]
    for g, ahead in enumerate(grid):
        if ahead >= length:
            out[:, g] = out[:, g - 1] if g else mean[:, None]
            continue
        older = past[:, :, :-ahead]
        cross = np.einsum("kbt,bt->bk", older, tame[:, ahead:])
        weight = np.linalg.solve(gram, cross[:, :, None])[:, :, 0].astype(np.float32)
        error = c[:, ahead:] - np.einsum("bk,kbt->bt", weight, older)
        now = np.einsum("bk,kb->b", weight, past[:, :, -1])
        out[:, g] = _quantiles(error, has[:, ahead:], levels) + (mean + now)[:, None]
    return out


def _means(c: F32, has: Mask) -> F32:
    """(K, B, T) means of the last `_MEANS` known steps up to each one."""
    out = np.empty((len(_MEANS), *c.shape), np.float32)
    total = np.cumsum(c, axis=1, dtype=np.float64)
    count = np.cumsum(has, axis=1, dtype=np.int64)
    for k, width in enumerate(_MEANS):
        t, n = total.copy(), count.copy()
        t[:, width:] -= total[:, :-width]
        n[:, width:] -= count[:, :-width]
        out[k] = t / np.maximum(n, 1)
    return out


def _quantiles(error: F32, has: Mask, levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """(B, Q) empirical quantiles of the errors that are known; 0 where there are none."""
    ordered = np.sort(np.where(has, error, np.float32(np.inf)), axis=1)
    n = has.sum(axis=1)[:, None]
    # Positions at level x (n + 1): right on average for the next one, also when n is small.
    at = np.clip(levels * (n + 1) - 1, 0, np.maximum(n - 1, 0))
    low = at.astype(np.int64)
    high = np.minimum(low + 1, np.maximum(n - 1, 0))
    a, b = (np.take_along_axis(ordered, i, axis=1).astype(np.float64) for i in (low, high))
    with np.errstate(invalid="ignore"):
        value = a + (at - low) * (b - a)
    return np.where(n > 0, value, 0.0)


def _grid(horizon: int) -> Index:
    """Distances at which errors are measured: powers of two, and the horizon itself."""
    powers = [1 << i for i in range(horizon.bit_length()) if 1 << i < horizon]
    return np.array([*powers, horizon], np.int64)


def _interpolation(grid: Index, horizon: int) -> NDArray[np.float64]:
    """(H, G) weights that draw straight lines between the distances of the grid."""
    steps = np.arange(1, horizon + 1)
    return np.stack([np.interp(steps, grid, unit) for unit in np.eye(len(grid))], axis=1)
