"""Compiled twin of gather.py for usual batches: one sample of each series, and every series once.

One pass orders the samples of all partitions and writes their frames, byte for byte what
`SampleFrame.encode` gives, into one buffer. Labels are put in afterwards, for the frames that have some.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openanomaly.core import kernels
from openanomaly.core.frames import VERSION

_HEADS_BYTES = 64
"""Of a frame, at most: tags and lengths of its fields, version, time of receipt."""


class Written(NamedTuple):
    """Frames of N samples by partition.

    Attributes:
        buffer: the frames without labels, one after another.
        frame: (P, 5) of the frame of each partition: where it begins there, where its ids do, its kinds,
            what follows its kinds, and where it ends. All the same if it has no sample.
        samples: (P + 1,) where the samples of each partition begin in `order`.
        order: (N,) places of the samples in the batches: by partition, then as they were.
    """

    buffer: NDArray[np.uint8]
    frame: NDArray[np.int64]
    samples: NDArray[np.int64]
    order: NDArray[np.int32]


@kernels.jit()
def _put_varint(out: Any, at: int, value: int) -> int:
    while value > 0x7F:
        out[at] = value & 0x7F | 0x80
        value >>= 7
        at += 1
    out[at] = value
    return at + 1


@kernels.jit()
def _varint_bytes(value: int) -> int:
    size = 1
    while value > 0x7F:
        value >>= 7
        size += 1
    return size


@kernels.jit()
def _order(partition: Any, samples: Any, order: Any) -> None:
    """A counting sort."""
    for i in range(len(partition)):
        samples[partition[i] + 1] += 1
    for p in range(1, len(samples)):
        samples[p] += samples[p - 1]
    following = samples[:-1].copy()
    for i in range(len(partition)):
        p = partition[i]
        order[following[p]] = i
        following[p] += 1


@kernels.jit()
def _is_once(ids: Any, chosen: Any, table: Any) -> bool:
    """Whether the ids at `chosen` places differ. `table` has room for twice as many, a power of two."""
    table[:] = -1
    mask = len(table) - 1
    for i in chosen:
        # Not the lowest bits: the partition is taken from them, so they are alike here.
        slot = np.int64(ids[i, 0] >> np.uint64(20)) & mask
        while table[slot] >= 0:
            other = table[slot]
            if ids[other, 0] == ids[i, 0] and ids[other, 1] == ids[i, 1]:
                return False
            slot = (slot + 1) & mask
        table[slot] = i
    return True


@kernels.jit()
def _write(
    ids: Any,
    kind: Any,
    timestamp_ms: Any,
    value: Any,
    samples: Any,
    order: Any,
    version: int,
    received_ms: int,
    out: Any,
    frame: Any,
) -> bool:
    """Write the frames; False if a series is there twice. `value` are the bits of the values."""
    table = np.empty(0, np.int32)
    at = 0
    for p in range(len(samples) - 1):
        chosen = order[samples[p] : samples[p + 1]]
        n = len(chosen)
        frame[p] = at
        if n == 0:
            continue
        room = 4
        while room < 2 * n:
            room *= 2
        if len(table) < room:
            table = np.empty(room, np.int32)
        if not _is_once(ids, chosen, table[:room]):
            return False
        out[at] = 0x08
        at = _put_varint(out, at + 1, version)
        out[at] = 0x12
        series_bytes = 2 + _varint_bytes(16 * n) + 16 * n + _varint_bytes(n) + n
        at = frame[p, 1] = _put_varint(out, at + 1, series_bytes)
        out[at] = 0x0A
        at = _put_varint(out, at + 1, 16 * n)
        for i in chosen:
            kernels.put_word(out, at, ids[i, 0])
            kernels.put_word(out, at + 8, ids[i, 1])
            at += 16
        frame[p, 2] = at
        out[at] = 0x22
        at = _put_varint(out, at + 1, n)
        for i in chosen:
            out[at] = kind[i]
            at += 1
        frame[p, 3] = at
        out[at] = 0x1A
        at = _put_varint(out, at + 1, 4 * n)
        for k in range(n):
            kernels.put_word(out, at, np.uint64(k))  # four bytes of it; the others are written over
            at += 4
        out[at] = 0x22
        at = _put_varint(out, at + 1, 8 * n)
        for i in chosen:
            kernels.put_word(out, at, np.uint64(timestamp_ms[i]))
            at += 8
        out[at] = 0x2A
        at = _put_varint(out, at + 1, 8 * n)
        for i in chosen:
            kernels.put_word(out, at, value[i])
            at += 8
        if received_ms > 0:
            out[at] = 0x30
            at = _put_varint(out, at + 1, received_ms)
        frame[p, 4] = at
    return True


def write(
    ids: NDArray[np.uint64],
    partition: NDArray[np.uint16],
    kind: NDArray[np.uint8],
    timestamp_ms: NDArray[np.int64],
    value: NDArray[np.float64],
    samples_limit: int,
    received_ms: int,
) -> Written | None:
    """Frames of N samples, each of a series of its own; None if a series is there twice, or a frame
    would have more than `samples_limit` samples. All columns have N values."""
    n, partitions = len(ids), int(partition.max()) + 1
    samples, order = np.zeros(partitions + 1, np.int64), np.empty(n, np.int32)
    _order(partition, samples, order)
    if np.diff(samples).max() > samples_limit:
        return None
    frame = np.empty((partitions, 5), np.int64)
    buffer = np.empty(n * 37 + partitions * _HEADS_BYTES + 8, np.uint8)
    columns = ids, kind, timestamp_ms, value.view(np.uint64)
    if not _write(*columns, samples, order, VERSION, received_ms, buffer, frame):
        return None
    return Written(buffer, frame, samples, order)


@kernels.compiles
def _compile() -> None:
    one = np.zeros(1, np.uint8)
    ids, times = np.zeros((1, 2), np.uint64), np.zeros(1, np.int64)
    assert write(ids, np.zeros(1, np.uint16), one, times, np.zeros(1), 1, 1) is not None
