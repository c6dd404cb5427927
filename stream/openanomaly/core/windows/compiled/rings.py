"""Steps into rings, and contexts out of them."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openanomaly.core import kernels
from openanomaly.core.contexts import EXPONENT, PROBES, SMALLEST, Contexts, probes
from openanomaly.core.halves import to_half
from openanomaly.core.kernels import jit
from openanomaly.core.windows.rows import NEVER, Rows

I64 = NDArray[np.int64]


@jit(error_model="numpy")
def _put(data: Any, newest: Any, first: Any, rows: Any, bucket: Any, value: Any) -> None:
    slots = data.shape[1]
    same, slot = np.int64(-1), np.int64(0)
    for i in range(len(rows)):
        r, b = np.uint64(rows[i]), bucket[i]
        last = newest[r]
        if last == NEVER:
            first[r] = b
        elif b > last + 1:
            for gap in range(max(last + 1, b - slots), b):
                data[r, gap % slots] = np.nan
        elif b <= last - slots:
            continue
        if b != same:
            same, slot = b, b % slots
        data[r, slot] = value[i]
        newest[r] = max(last, b)


def put(
    data: NDArray[np.float32], newest: I64, first: I64, rows: Rows, bucket: I64, value: NDArray[np.float32]
) -> None:
    """Twin of `Ring.put`."""
    _put(data, newest, first, rows, bucket, np.ascontiguousarray(value))


_INF = np.float32(np.inf)
_SIGN, _SIZE, _INF_BITS = np.int32(31), np.int32(0x7FFFFFFF), np.int32(0x7F800000)
_LOWEST, _HIGHEST = np.int32(-(1 << 31)), np.int32((1 << 31) - 1)


@jit(error_model="numpy")
def _extent(bits: Any) -> Any:
    """Least and largest of the finite float32 with these bits, and how many there are.

    As integers in the order of the numbers: a loop over those is vectorised.
    """
    least, most, count = _HIGHEST, _LOWEST, np.int32(0)
    for k in range(len(bits)):
        b = bits[k]
        key = np.int32(b ^ ((b >> _SIGN) & _SIZE))
        is_known = np.int32(b & _SIZE) < _INF_BITS
        least = min(least, key if is_known else _HIGHEST)
        most = max(most, key if is_known else _LOWEST)
        count += np.int32(1) if is_known else np.int32(0)
    return _of_key(least), _of_key(most), count


@jit(error_model="numpy", inline="always")
def _of_key(key: Any) -> Any:
    return kernels.of_bits(np.uint32(key ^ ((key >> _SIGN) & _SIZE)))


@jit(error_model="numpy")
def _pack(
    data: Any,
    newest: Any,
    first: Any,
    rows: Any,
    end: Any,
    born: Any,
    probe: Any,
    packed: Any,
    center: Any,
    scale: Any,
    known: Any,
) -> None:
    slots, length = data.shape[1], packed.shape[1]
    values, tried = np.empty(length, np.float32), np.empty(PROBES, np.float32)
    for i in range(len(rows)):
        r = np.uint64(rows[i])
        # As Ring.windows: steps that are not the row's, or overwritten, are missing.
        begin = end[i] - length + 1
        oldest = max(max(born[i], first[r]), newest[r] - slots + 1)
        head = min(max(oldest - begin, 0), length)
        values[:head] = np.nan
        at = (begin + head) % slots
        part = min(length - head, slots - at)
        values[head : head + part] = data[r, at : at + part]
        values[head + part :] = data[r, : length - head - part]

        least, most, count = _extent(values.view(np.int32))
        known[i] = count
        tries = np.int32(0)
        for k in range(PROBES):
            v = values[probe[k]]
            is_known = abs(v) < _INF
            tried[k] = v if is_known else _INF
            tries += np.int32(is_known)
        for last in range(PROBES - 1, 0, -1):  # no branch: their order cannot be predicted
            for k in range(last):
                low, high = tried[k], tried[k + 1]
                tried[k], tried[k + 1] = (low if low < high else high), (high if low < high else low)
        middle = np.float32(0)
        if tries:
            middle = tried[(tries - 1) // 2]
        elif count:
            k = length - 1
            while not abs(values[k]) < _INF:
                k -= 1
            middle = values[k]
        middle += np.float32(0)  # no negative zero: which of two zeros came first is nobody's business
        size = 0.0
        if count:
            size = max(np.float64(most) - np.float64(middle), np.float64(middle) - np.float64(least))
        exponent = 0
        if size > 0:
            exponent = max(math.frexp(size)[1] - EXPONENT, SMALLEST)
        factor = math.ldexp(1.0, -exponent)
        for k in range(length):
            packed[i, k] = to_half(np.float32((np.float64(values[k]) - np.float64(middle)) * factor))
        center[i], scale[i] = middle, np.float32(math.ldexp(1.0, exponent))


def pack(
    data: NDArray[np.float32], newest: I64, first: I64, rows: Rows, end: I64, born: I64, length: int
) -> tuple[Contexts, I64]:
    """Twin of `Contexts.pack` after `Ring.windows`; also (n,) how many steps of each are there."""
    n = len(rows)
    out = Contexts(np.empty((n, length), np.float16), np.empty(n, np.float32), np.empty(n, np.float32))
    known = np.empty(n, np.int64)
    packed = out.packed.view(np.uint16)
    _pack(data, newest, first, rows, end, born, probes(length), packed, out.center, out.scale, known)
    return out, known


@kernels.WINDOWS.compiles
def _warm_up() -> None:
    one, data, newest = np.zeros(1, np.int64), np.zeros((1, 8), np.float32), np.zeros(1, np.int64)
    for value in (np.zeros(1, np.float32), kernels.read_only(np.zeros(1, np.float32))):
        put(data, newest, newest.copy(), one, one, value)
    pack(data, newest, newest.copy(), one, one, one, 4)
