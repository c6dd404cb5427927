"""Forecasts into bands, and the quantiles of a step out of them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from openanomaly.core.halves import of_half
from openanomaly.core.kernels import WINDOWS, jit, read_only
from openanomaly.core.windows.rows import Column, Columns, Rows

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

_STRIP = 512


@jit(error_model="numpy")
def _at(
    quantile: Any, center: Any, scale: Any, origin: Any, rows: Any, bucket: Any, base: Any, out: Any
) -> None:
    horizon, levels = quantile.shape[1], quantile.shape[2]
    flat = quantile.reshape(-1)
    at = np.empty(_STRIP, np.uint64)
    found = np.empty((levels, _STRIP), np.uint32)
    factor, middle = np.empty(_STRIP), np.empty(_STRIP)
    for begin in range(0, len(rows), _STRIP):
        n = min(_STRIP, len(rows) - begin)
        for i in range(n):
            r = np.uint64(rows[begin + i])
            step = bucket[begin + i] - origin[r] - 1
            has = 0 <= step < horizon
            factor[i] = scale[r]
            middle[i] = center[r] + base[begin + i] if has else np.nan
            at[i] = (rows[begin + i] * horizon + (step if has else 0)) * levels
        # The first of these loops waits for memory, with many rows on their way at a time.
        for k in range(levels):
            for i in range(n):
                found[k, i] = flat[at[i] + np.uint64(k)]
        for k in range(levels):
            for i in range(n):
                out[k, begin + i] = np.float64(of_half(found[k, i])) * factor[i] + middle[i]


def quantiles_at(
    quantile: NDArray[np.float16],
    center: NDArray[np.float32],
    scale: NDArray[np.float32],
    origin: I64,
    rows: Rows,
    bucket: I64,
    base: F64,
) -> F64:
    """Twin of `Bands.at`."""
    out = np.empty((quantile.shape[2], len(rows)))
    _at(quantile.view(np.uint16), center, scale, origin, rows, bucket, base, out)
    return out.T


@jit(error_model="numpy")
def _apply(
    quantile: Any,
    center: Any,
    scale: Any,
    origin: Any,
    offset: Any,
    rows: Any,
    chosen: Any,
    new_quantile: Any,
    new_center: Any,
    new_scale: Any,
    new_origin: Any,
    new_offset: Any,
) -> int:
    taken = 0
    levels, horizon = new_quantile.shape[1], new_quantile.shape[2]
    for i in range(len(rows)):
        r = np.uint64(rows[i])
        if not chosen[i] or new_origin[i] <= origin[r]:
            continue
        for step in range(horizon):
            for k in range(levels):
                quantile[r, step, k] = new_quantile[i, k, step]
        center[r], scale[r], origin[r] = new_center[i], new_scale[i], new_origin[i]
        offset[r] = new_offset
        taken += 1
    return taken


def apply(
    columns: Columns,
    rows: Rows,
    chosen: NDArray[np.bool_],
    quantile: NDArray[np.float16],
    center: NDArray[np.float32],
    scale: NDArray[np.float32],
    origin: I64,
    offset: int,
) -> int:
    """Twin of `Bands.apply` for rows that differ."""
    return int(
        _apply(
            columns["quantile"].view(np.uint16),
            columns["center"],
            columns["scale"],
            columns["origin"],
            columns["offset"],
            rows,
            chosen,
            quantile.view(np.uint16),
            center,
            scale,
            origin,
            offset,
        )
    )


@WINDOWS.compiles
def _warm_up() -> None:
    one, halves, singles = np.zeros(1, np.int64), np.zeros((1, 5, 1), np.float16), np.zeros(1, np.float32)
    c = Columns(
        [
            Column("quantile", "f2", 0, (1, 5)),
            Column("center", "f4", 0),
            Column("scale", "f4", 0),
            Column("origin", "i8", 0),
            Column("offset", "i8", 0),
        ]
    )
    quantiles_at(c["quantile"], c["center"], c["scale"], c["origin"], one, one, np.zeros(1))
    chosen = np.ones(1, bool)
    apply(c, one, chosen, read_only(halves), read_only(singles), read_only(singles), read_only(one), 0)
