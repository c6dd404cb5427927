"""Remote-write 2.0 time series read for a whole request at once: references, sample, metadata.

The pattern of a usual time series: packed label references, one sample (with or without value and
start timestamp), perhaps metadata, and nothing else. `is_usual` says which series fit it.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from openanomaly.adapters.remote_write.columns import KINDS, REFS_LIMIT_BYTES, check_count
from openanomaly.adapters.remote_write.samples import read_time
from openanomaly.core.series import Ids, ids_of

_PAD = 64
_VALUE = np.dtype("V8")


class Usual(NamedTuple):
    """Columns of S time series; where not `is_usual`, the other columns mean nothing."""

    is_usual: NDArray[np.bool_]
    timestamp_ms: NDArray[np.int64]
    value: NDArray[np.float64]
    kind: NDArray[np.uint8]


def read(slices: list[bytes], symbols: int) -> tuple[Usual, NDArray[np.int64], NDArray[np.int64]]:
    """The columns of `slices`, S time series as bytes, that refer to `symbols` symbols.

    With them the references of all usual series, one after another, and (S,) how many each has.
    """
    data = np.frombuffer(b"".join([*slices, bytes(_PAD)]), np.uint8)
    length = np.fromiter(map(len, slices), np.int64, len(slices))
    end = np.cumsum(length)
    start = end - length
    # Label references: `0a <length> <packed varints>`; the length has one byte or two.
    low, high = data[start + 1].astype(np.int64), data[start + 2].astype(np.int64)
    is_long = low > 0x7F
    size = np.where(is_long, low & 0x7F | high << 7, low)
    first = start + 2 + is_long
    at = first + size
    is_usual = (length > 8) & (data[start] == 0x0A) & ~(is_long & (high > 0x7F)) & (at + 9 <= end)
    at = np.where(is_usual, at, 0)
    sample = _samples(data, at)
    is_usual &= sample.is_usual & (sample.end <= end)
    kind = _kinds(data, np.where(is_usual, sample.end, end), end, is_usual)
    check(int(size[is_usual].sum()))
    ref, refs = _references(data, first[is_usual], size[is_usual])
    count = np.zeros(len(slices), np.int64)
    count[is_usual] = refs
    if (refs & 1).any() or (ref >= symbols).any():
        ref = _drop_broken(ref, count, is_usual, symbols)
    return Usual(is_usual, sample.timestamp_ms, sample.value, kind), ref, count


def check(size_bytes: int) -> None:
    """Refuse a request of too many label references before they are made numbers of.

    Raises:
        RequestTooLargeError: it must be sent in smaller ones.
    """
    check_count(size_bytes, "bytes of label references", REFS_LIMIT_BYTES)


def of_usual(series: bytes) -> list[int]:
    """The label references of one usual time series."""
    size, at = _varint(series, 1)
    end = at + size
    found = []
    while at < end:
        number, at = _varint(series, at)
        found.append(number)
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while (byte := data[at]) > 0x7F:
        number |= (byte & 0x7F) << shift
        shift += 7
        at += 1
    return number | byte << shift, at + 1


class _Samples(NamedTuple):
    is_usual: NDArray[np.bool_]
    end: NDArray[np.int64]
    timestamp_ms: NDArray[np.int64]
    value: NDArray[np.float64]


def _samples(data: NDArray[np.uint8], at: NDArray[np.int64]) -> _Samples:
    """The samples that start `at`: `12 <size> [09 <value>] 10 <time> [18 <start time>]`."""
    size = data[at + 1].astype(np.int64)
    has_value = data[at + 2] == 0x09
    words = np.ndarray((len(data) - 7,), _VALUE, data, strides=(1,))
    value = np.where(has_value, words[at + 3].view("<f8"), 0.0)
    time_at = at + 2 + 9 * has_value
    rows = np.ascontiguousarray(words[time_at]).view(np.uint8).reshape(-1, 8)
    time, is_time = read_time(rows[:, 1:7])
    used = 7 + 9 * has_value
    rest = size - used
    # A start timestamp is skipped, whatever its six bytes are: it is one varint to the end.
    start_at = at + 2 + used
    started = (rest == 7) & (data[start_at] == 0x18)
    if started.any():
        rows = np.ascontiguousarray(words[start_at]).view(np.uint8).reshape(-1, 8)
        started &= read_time(rows[:, 1:7])[1]
    is_usual = (data[at] == 0x12) & (rows_tag(data, time_at)) & is_time & ((rest == 0) | started)
    return _Samples(is_usual, at + 2 + size, time, value)


def rows_tag(data: NDArray[np.uint8], at: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a timestamp's tag stands `at`."""
    is_tag: NDArray[np.bool_] = data[at] == 0x10
    return is_tag


def _kinds(
    data: NDArray[np.uint8], at: NDArray[np.int64], end: NDArray[np.int64], is_usual: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Kinds from the metadata that stand `at`: `2a <size> [08 <type>] ...`; clears `is_usual` at others."""
    has = at < end
    if not has.any():
        return np.zeros(len(at), np.uint8)
    size = data[at + 1].astype(np.int64)
    is_usual &= ~has | ((data[at] == 0x2A) & (size < 0x80) & (at + 2 + size == end))
    number = data[at + 3]
    typed = has & is_usual & (size >= 2) & (data[at + 2] == 0x08) & (number < len(KINDS))
    return np.where(typed, KINDS[np.where(typed, number, 0)], 0).astype(np.uint8)


def _references(
    data: NDArray[np.uint8], first: NDArray[np.int64], size: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Varints of the regions `first` + `size`: all of them in order, and how many each region has.

    A varint of more than four bytes, or one that is cut off, gives a number beyond any symbol.
    """
    total = int(size.sum())
    stop = np.cumsum(size)
    raw = data[np.arange(total) + np.repeat(first - stop + size, size)]
    last = np.flatnonzero(raw < 0x80)
    length = np.diff(last, prepend=-1)
    value = raw[last].astype(np.int64)
    for i in range(1, min(int(length.max(initial=1)), 4)):
        more = length > i
        value = np.where(more, value << 7 | (raw[np.maximum(last - i, 0)] & 0x7F), value)
    value[length > 4] = 1 << 40
    ends = np.searchsorted(last, stop)
    count = np.diff(ends, prepend=0)
    if total and size.size:
        cut = (size > 0) & (raw[np.maximum(stop, 1) - 1] >= 0x80)
        if cut.any():
            # The region ends inside a varint, which would swallow the next region's first one.
            value[:] = 1 << 40
    return value, count


def _drop_broken(
    ref: NDArray[np.int64], count: NDArray[np.int64], is_usual: NDArray[np.bool_], symbols: int
) -> NDArray[np.int64]:
    """Without the series whose references are odd in number or beyond the symbols: those are not usual."""
    owner = np.repeat(np.arange(len(count)), count)
    broken = (count & 1) == 1
    broken[owner[ref >= symbols]] = True
    is_usual &= ~broken
    ref = ref[~broken[owner]]
    count[broken] = 0
    return ref


def hash_series(symbols: list[bytes], ref: NDArray[np.int64], refs: NDArray[np.int64]) -> Ids:
    """(S, 2) hashes of label sets, the same whatever numbers a request gives its symbols.

    A label's hash mixes those of its two strings, a set's is their sum: a request hashes each symbol
    once, and everything else is arithmetic on columns. The order of labels does not matter.
    """
    strings = ids_of(symbols)
    low, high = np.ascontiguousarray(strings[:, 0]), np.ascontiguousarray(strings[:, 1])
    name, value = ref[0::2], ref[1::2]
    one = np.uint64(1)
    out = np.zeros((len(refs), 2), np.uint64)
    full = refs > 0
    start = ((np.cumsum(refs) - refs) >> 1)[full]
    if start.size:
        out[full, 0] = np.add.reduceat(low[name] * (high | one)[value], start)
        out[full, 1] = np.add.reduceat(high[name] * (low | one)[value], start)
    return out
