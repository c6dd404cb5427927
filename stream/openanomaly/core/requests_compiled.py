"""Requests of both versions of remote-write, walked by compiled loops; twins in adapters/remote_write."""

import secrets
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openanomaly.core import kernels
from openanomaly.core.kernels import jit

Bytes = NDArray[np.uint8]
U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

SAMPLE_BYTES = 18
"""Of a sample with a value, as samples.py has it: `12 10 09 <8 bytes value> 10 <6 bytes timestamp>`."""
ZERO_BYTES = 9
"""Of a sample whose value is 0, which most senders leave out: `12 07 10 <6 bytes timestamp>`."""
REFS_BYTES = 1 << 14
"""The label references of a usual time series are fewer: their length has one byte or two."""
_USUAL_BYTES = 64
"""A time series has more, as a rule: what there is room for before it is known how many there are."""
_SEED: U64 = np.frombuffer(secrets.token_bytes(64), np.uint64)
"""Of this process: who can choose labels must not be able to choose hashes that meet."""


@jit()
def _hash(data: Bytes, at: int, size: int, seed: U64) -> Any:
    """128 bits of `size` bytes: two lanes of folded products. Reads up to 7 bytes beyond the last one.

    While there are 32 bytes the lanes are four, of other secrets: a processor does them side by side.
    """
    a, b = seed[0] ^ np.uint64(size), seed[1] ^ np.uint64(size)
    end = at + size
    if size >= 32:
        c, d = a, b
        while at + 32 <= end:
            x, y = kernels.word(data, at), kernels.word(data, at + 8)
            a, b = kernels.fold(x ^ seed[2], y ^ a), kernels.fold(x ^ seed[3], y ^ b)
            x, y = kernels.word(data, at + 16), kernels.word(data, at + 24)
            c, d = kernels.fold(x ^ seed[4], y ^ c), kernels.fold(x ^ seed[5], y ^ d)
            at += 32
        a, b = a ^ c, b ^ d
    while at + 16 <= end:
        x, y = kernels.word(data, at), kernels.word(data, at + 8)
        a, b = kernels.fold(x ^ seed[2], y ^ a), kernels.fold(x ^ seed[3], y ^ b)
        at += 16
    left = end - at
    x = y = np.uint64(0)
    if left > 8:
        x = kernels.word(data, at)
        y = kernels.word(data, at + 8) & (~np.uint64(0) >> np.uint64(8 * (16 - left)))
    elif left > 0:
        x = kernels.word(data, at) & (~np.uint64(0) >> np.uint64(8 * (8 - left)))
    a, b = kernels.fold(x ^ seed[2], y ^ a), kernels.fold(x ^ seed[3], y ^ b)
    return kernels.fold(a ^ seed[1], np.uint64(size) ^ seed[2]), kernels.fold(
        b ^ seed[0], np.uint64(size) ^ seed[3]
    )


@jit()
def _varint(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """A number of at most five bytes and what follows it; -1 where there is none."""
    value = shift = 0
    while at < end and shift < 35:
        byte = int(data[at])
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return -1, at


@jit()
def _time(data: Bytes, at: int) -> Any:
    """The six-byte number at `at`, or -1; there are two bytes before it."""
    digits = kernels.word(data, at - 2) >> np.uint64(16)
    if digits & np.uint64(0x808080808080) != np.uint64(0x8080808080):
        return -1
    number = np.uint64(0)
    for i in range(6):
        number |= ((digits >> np.uint64(8 * i)) & np.uint64(0x7F)) << np.uint64(7 * i)
    return np.int64(number)


@jit()
def _read_1(
    data: Bytes,
    end: int,
    seed: U64,
    start: I64,
    cut: I64,
    stop: I64,
    raw: U64,
    timestamp_ms: I64,
    value: NDArray[np.uint64],
) -> int:
    """How many series; -1 if there is anything else, or it is cut off; -2 if there are more than fit."""
    at = count = 0
    while at < end:
        if data[at] != 0x0A:
            return -1
        size, at = _varint(data, at + 1, end)
        if size < 0 or at + size > end:
            return -1
        if count == len(start):
            return -2
        stop_at = at + size
        start[count], stop[count], cut[count] = at, stop_at, -1
        timestamp_ms[count] = value[count] = raw[count, 0] = raw[count, 1] = 0
        label = at
        while label < stop_at and data[label] == 0x0A:
            length, label = _varint(data, label + 1, stop_at)
            if length < 0:
                label = stop_at
                break
            label += length
        # The sample: `12 <size> [09 <value>] 10 <time>`, to the end.
        left = stop_at - label
        has_value = left == SAMPLE_BYTES
        if (has_value or left == ZERO_BYTES) and data[label] == 0x12 and data[label + 1] == left - 2:
            time = _time(data, stop_at - 6)
            if data[stop_at - 7] == 0x10 and time >= 0 and (not has_value or data[label + 2] == 0x09):
                timestamp_ms[count] = time
                if has_value:
                    value[count] = kernels.word(data, label + 3)
                cut[count] = label
                raw[count, 0], raw[count, 1] = _hash(data, at, label - at, seed)
        at = stop_at
        count += 1
    return count


@jit()
def _count_2(data: Bytes, end: int) -> tuple[int, int]:
    """Symbols and time series of a 2.0 request; -1 if it is not symbols, then series."""
    at = symbols = series = 0
    while at < end:
        tag = data[at]
        if tag != 0x2A and (tag != 0x22 or series):
            return -1, 0
        size, at = _varint(data, at + 1, end)
        if size < 0 or at + size > end:
            return -1, 0
        if tag == 0x22:
            symbols += 1
        else:
            series += 1
        at += size
    return symbols, series


@jit()
def _read_2(
    data: Bytes,
    end: int,
    seed: U64,
    symbol_start: I64,
    symbol_stop: I64,
    symbol_hash: U64,
    start: I64,
    stop: I64,
    is_usual: NDArray[np.bool_],
    raw: U64,
    timestamp_ms: I64,
    value: U64,
    kinds: Bytes,
    kind: Bytes,
) -> int:
    """How many bytes the label references of all usual series have."""
    at = symbols = series = refs_bytes = 0
    while at < end:
        tag = data[at]
        size, at = _varint(data, at + 1, end)
        stop_at = at + size
        if tag == 0x22:
            symbol_start[symbols], symbol_stop[symbols] = at, stop_at
            symbol_hash[symbols, 0], symbol_hash[symbols, 1] = _hash(data, at, size, seed)
            symbols += 1
            at = stop_at
            continue
        i = series
        series += 1
        start[i], stop[i] = at, stop_at
        first, at = at, stop_at
        if size < 12 or data[first] != 0x0A:
            continue
        length, label = _varint(data, first + 1, stop_at)
        sample = label + length
        if not 0 <= length < REFS_BYTES or sample + 9 > stop_at or data[sample] != 0x12:
            continue
        # The sample: `12 <size> [09 <value>] 10 <time> [18 <start time>]`.
        sample_end = sample + 2 + np.int64(data[sample + 1])
        time_at = sample + 2
        number = np.uint64(0)
        if data[time_at] == 0x09 and time_at + 16 <= stop_at:
            number = kernels.word(data, time_at + 1)
            time_at += 9
        if data[sample + 1] >= 0x80 or sample_end > stop_at or time_at + 7 > sample_end:
            continue
        time = _time(data, time_at + 1)
        if data[time_at] != 0x10 or time < 0:
            continue
        rest = sample_end - time_at - 7
        if rest != 0 and not (rest == 7 and data[time_at + 7] == 0x18 and _time(data, time_at + 8) >= 0):
            continue
        # Metadata, perhaps: `2a <size> [08 <type>] ...`.
        if sample_end < stop_at:
            if data[sample_end] != 0x2A or sample_end + 2 > stop_at or data[sample_end + 1] >= 0x80:
                continue
            about = np.int64(data[sample_end + 1])
            if sample_end + 2 + about != stop_at:
                continue
            if about >= 2 and data[sample_end + 2] == 0x08 and data[sample_end + 3] < len(kinds):
                kind[i] = kinds[data[sample_end + 3]]
        # Label references, in pairs.
        a = b = np.uint64(0)
        while label < sample:
            name, label = _varint(data, label, sample)
            one, label = _varint(data, label, sample)
            if name < 0 or one < 0 or name >= symbols or one >= symbols:
                label = -1
                break
            a += kernels.fold(symbol_hash[name, 0] ^ seed[2], symbol_hash[one, 1] ^ seed[3])
            b += kernels.fold(symbol_hash[name, 1] ^ seed[2], symbol_hash[one, 0] ^ seed[3])
        if label < 0:
            continue
        raw[i, 0], raw[i, 1] = a, b
        timestamp_ms[i], value[i] = time, number
        is_usual[i] = True
        refs_bytes += length
    return refs_bytes


def read_1(body: bytes | bytearray, limit: int) -> tuple[I64, I64, I64, U64, I64, NDArray[np.float64]] | None:
    """The time series of a 1.0 request that has nothing else, and at most `limit` of them; else None.

    Returns:
        start, cut, stop: (S,) where each begins, where its one sample does (-1 if it is not one sample
            of the usual shape behind labels alone), where it ends.
        raw: (S, 2) hash of its label block, the bytes [start, cut).
        timestamp_ms, value: (S,) of the sample.
    """
    data = np.frombuffer(body, np.uint8)
    room = len(body) // _USUAL_BYTES + 1
    while True:
        start, cut, stop, timestamp_ms = (np.empty(room, np.int64) for _ in range(4))
        raw, value = np.empty((room, 2), np.uint64), np.empty(room, np.uint64)
        n = _read_1(data, len(body), _SEED, start, cut, stop, raw, timestamp_ms, value)
        if n == -2 and room < limit:
            room = limit
            continue
        if not 0 <= n <= limit:
            return None
        return start[:n], cut[:n], stop[:n], raw[:n], timestamp_ms[:n], value[:n].view(np.float64)


class Request2(NamedTuple):
    """A 2.0 request: Y symbols and S series by place; the rest as refs.Usual has it, and `raw` hashes."""

    symbol_start: I64
    symbol_stop: I64
    start: I64
    stop: I64
    is_usual: NDArray[np.bool_]
    raw: U64
    timestamp_ms: I64
    value: NDArray[np.float64]
    kind: Bytes
    refs_bytes: int


def read_2(body: bytes | bytearray, limit: int, kinds: Bytes) -> Request2 | None:
    """A 2.0 request that is symbols and then at most `limit` time series; else None.

    `kinds` are what series are by the number of their metric type; 0 where there is none.
    """
    # A symbol that ends the body is hashed in whole words, and so reads beyond it.
    data = np.frombuffer(body + bytes(16), np.uint8)
    symbols, series = _count_2(data, len(body))
    if symbols < 0 or series > limit:
        return None
    found = Request2(
        np.zeros(symbols, np.int64),
        np.zeros(symbols, np.int64),
        np.zeros(series, np.int64),
        np.zeros(series, np.int64),
        np.zeros(series, bool),
        np.zeros((series, 2), np.uint64),
        np.zeros(series, np.int64),
        np.zeros(series, np.float64),
        np.zeros(series, np.uint8),
        0,
    )
    places, columns = found[:2], found[2:7]
    hashes = np.zeros((symbols, 2), np.uint64)
    numbers = found.value.view(np.uint64)
    size = _read_2(data, len(body), _SEED, *places, hashes, *columns, numbers, kinds, found.kind)
    return found._replace(refs_bytes=size)


@kernels.compiles
def _compile() -> None:
    """Call every function once with each type that it will have: views of bytes cannot be written."""
    block = b"\x0a\x06\x0a\x01a\x12\x01b"
    sample = b"\x12\x10\x09" + bytes(8) + b"\x10" + b"\x80" * 5 + b"\x01"
    series = b"\x0a" + bytes([len(block) + len(sample)]) + block + sample
    for body in (series, bytearray(series)):
        found = read_1(body, 1)
        assert found is not None
        assert found[1].tolist() == [2 + len(block)]
    labels = b"\x0a\x02\x01\x02"
    request = b"\x22\x00\x22\x01a\x22\x01b\x2a" + bytes([len(labels) + len(sample)]) + labels + sample
    for body in (request, bytearray(request)):
        read = read_2(body, 1, np.zeros(8, np.uint8))
        assert read is not None
        assert read.is_usual.all()
