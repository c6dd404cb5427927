"""Compiled twin of gather.py for usual batches: one sample of each series, and every series once.

The frames of all partitions are laid out in one buffer, byte for byte what `SampleFrame.encode` gives, and
each sample is written where it belongs. Labels are put in afterwards, for the frames that have some.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openanomaly.core import kernels
from openanomaly.core.frames import VERSION

_HEADS_BYTES = 64
"""Of a frame, at most: tags and lengths of its fields, version, time of receipt."""


class Written(NamedTuple):
    """Frames of N samples of B batches, by partition.

    Attributes:
        buffer: the frames without labels, one after another.
        frame: (P, 5) of the frame of each partition: where it begins there, where its ids do, its kinds,
            what follows its kinds, and where it ends. All the same if it has no sample.
        samples: (B, P) how many of each batch are in each frame.
        partition, place: (N,) of each sample, the batches one after another: in which frame, and where.
    """

    buffer: NDArray[np.uint8]
    frame: NDArray[np.int64]
    samples: NDArray[np.int64]
    partition: NDArray[np.uint16]
    place: NDArray[np.int32]


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
def _count(partition: Any, samples: Any) -> None:
    for i in range(len(partition)):
        samples[partition[i]] += 1


@kernels.jit()
def _heads(samples: Any, version: int, received_ms: int, out: Any, frame: Any, cursor: Any) -> None:
    """Write all but what samples have of their own: `cursor` (P, 4) says where ids, kinds, times and
    values of each frame begin."""
    at = 0
    for p in range(len(samples)):
        n = samples[p]
        frame[p] = cursor[p] = at
        if n == 0:
            continue
        out[at] = 0x08
        at = _put_varint(out, at + 1, version)
        out[at] = 0x12
        series_bytes = 2 + _varint_bytes(16 * n) + 16 * n + _varint_bytes(n) + n
        at = frame[p, 1] = _put_varint(out, at + 1, series_bytes)
        out[at] = 0x0A
        cursor[p, 0] = _put_varint(out, at + 1, 16 * n)
        at = frame[p, 2] = cursor[p, 0] + 16 * n
        out[at] = 0x22
        cursor[p, 1] = _put_varint(out, at + 1, n)
        at = frame[p, 3] = cursor[p, 1] + n
        out[at] = 0x1A
        at = _put_varint(out, at + 1, 4 * n)
        for k in range(n):
            kernels.put_word(out, at, np.uint64(k))  # four bytes of it; the others are written over
            at += 4
        out[at] = 0x22
        cursor[p, 2] = _put_varint(out, at + 1, 8 * n)
        at = cursor[p, 2] + 8 * n
        out[at] = 0x2A
        cursor[p, 3] = _put_varint(out, at + 1, 8 * n)
        at = cursor[p, 3] + 8 * n
        if received_ms > 0:
            out[at] = 0x30
            at = _put_varint(out, at + 1, received_ms)
        frame[p, 4] = at


@kernels.jit()
def _fill(
    ids: Any, partition: Any, kind: Any, timestamp_ms: Any, value: Any, cursor: Any, out: Any, place: Any
) -> None:
    """Write the samples of a batch where `cursor` says, and move it on. `value` are bits of values."""
    for i in range(len(ids)):
        p = partition[i]
        at = cursor[p, 0]
        kernels.put_word(out, at, ids[i, 0])
        kernels.put_word(out, at + 8, ids[i, 1])
        cursor[p, 0] = at + 16
        out[cursor[p, 1]] = kind[i]
        cursor[p, 1] += 1
        kernels.put_word(out, cursor[p, 2], np.uint64(timestamp_ms[i]))
        cursor[p, 2] += 8
        kernels.put_word(out, cursor[p, 3], value[i])
        cursor[p, 3] += 8
        place[i] = cursor[p, 4]
        cursor[p, 4] += 1


@kernels.jit()
def _is_once(out: Any, cursor: Any, samples: Any) -> bool:
    """Whether the ids of each frame differ; `cursor` says where they end."""
    table = np.empty(0, np.int32)
    for p in range(len(samples)):
        n = samples[p]
        room = 4
        while room < 2 * n:
            room *= 2
        if len(table) < room:
            table = np.empty(room, np.int32)
        table[:room] = -1
        mask = room - 1
        start = cursor[p, 0] - 16 * n
        for k in range(n):
            low = kernels.word(out, start + 16 * k)
            high = kernels.word(out, start + 16 * k + 8)
            # Not the lowest bits: the partition is taken from them, so they are alike here.
            slot = np.int64(low >> np.uint64(20)) & mask
            while table[slot] >= 0:
                other = start + 16 * table[slot]
                if kernels.word(out, other) == low and kernels.word(out, other + 8) == high:
                    return False
                slot = (slot + 1) & mask
            table[slot] = k
    return True


Columns = tuple[
    NDArray[np.uint64], NDArray[np.uint16], NDArray[np.uint8], NDArray[np.int64], NDArray[np.float64]
]


def write(batches: Sequence[Columns], samples_limit: int, received_ms: int) -> Written | None:
    """Frames of batches of samples, each of a series of its own; None if a series is there twice, or a
    frame would have more than `samples_limit` samples.

    Args:
        batches: ids (N, 2), partition, kind, time and value of their samples, N each.
    """
    partition = np.concatenate([b[1] for b in batches])
    samples = np.zeros((len(batches), int(partition.max()) + 1), np.int64)
    for b, mine in zip(batches, samples, strict=True):
        _count(b[1], mine)
    total = samples.sum(axis=0)
    if total.max() > samples_limit:
        return None
    place = np.empty(len(partition), np.int32)
    frame, cursor = np.empty((len(total), 5), np.int64), np.empty((len(total), 5), np.int64)
    buffer = np.empty(len(partition) * 37 + len(total) * _HEADS_BYTES + 8, np.uint8)
    _heads(total, VERSION, received_ms, buffer, frame, cursor)
    cursor[:, 4] = 0
    start = 0
    for ids, where, kind, timestamp_ms, value in batches:
        columns = ids, where, kind, kernels.plain(timestamp_ms), kernels.plain(value).view(np.uint64)
        _fill(*columns, cursor, buffer, place[start:])
        start += len(ids)
    if not _is_once(buffer, cursor, total):
        return None
    return Written(buffer, frame, samples, partition, place)


@kernels.compiles
def _compile() -> None:
    one = np.zeros(1, np.uint8)
    ids, times = np.zeros((1, 2), np.uint64), np.zeros(1, np.int64)
    assert write([(ids, np.zeros(1, np.uint16), one, times, np.zeros(1))], 1, 1) is not None
