"""The one sample that ends a time series, read for all series of a request at once.

Senders write one sample per time series and request. Its bytes are a fixed pattern, so columns of
samples come out of a few array operations; whatever does not match is for the full schema.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

WITH_VALUE = 18
"""`12 10 09 <8 bytes value> 10 <6 bytes timestamp>`"""
WITHOUT_VALUE = 9
"""`12 07 10 <6 bytes timestamp>`: protobuf leaves out a value of 0."""

_ROW = np.dtype([("head", "u1", 3), ("value", "<f8"), ("tag", "u1"), ("timestamp", "u1", 6)])


class Tails(NamedTuple):
    """Per series: length of the sample at its end, 0 where there is none that matches."""

    length: NDArray[np.int64]
    timestamp_ms: NDArray[np.int64]
    value: NDArray[np.float64]


def tails(slices: list[bytes]) -> Tails:
    """The samples that end `slices`, S time series as bytes."""
    count = len(slices)
    joined = b"".join([s[-WITH_VALUE:] for s in slices])
    if len(joined) != count * WITH_VALUE:
        joined = b"".join([s[-WITH_VALUE:].rjust(WITH_VALUE, b"\0") for s in slices])
    rows = np.frombuffer(joined, np.uint8).reshape(count, WITH_VALUE)
    time, is_time = read_time(rows[:, 12:])
    has_value = (rows[:, 0] == 0x12) & (rows[:, 1] == 16) & (rows[:, 2] == 0x09) & (rows[:, 11] == 0x10)
    has_value &= is_time
    value = rows.reshape(-1).view(_ROW)["value"]
    if has_value.all():
        return Tails(np.full(count, WITH_VALUE), time, value)
    has_none = (rows[:, 9] == 0x12) & (rows[:, 10] == 7) & (rows[:, 11] == 0x10) & is_time & ~has_value
    length = np.where(has_value, WITH_VALUE, np.where(has_none, WITHOUT_VALUE, 0))
    return Tails(length, time, np.where(has_value, value, 0.0))


def read_time(rows: Bytes) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Numbers of (S, 6) bytes that are one varint each, and whether they are.

    Six bytes hold Unix milliseconds from 2^35 (February 1971) to 2^42 (May 2109).
    """
    wide = np.zeros((len(rows), 8), np.uint8)
    wide[:, :6] = rows
    word = wide.reshape(-1).view("<u8")
    is_time = (word & np.uint64(0x808080808080)) == np.uint64(0x008080808080)
    time = word & np.uint64(0x7F)
    for i in range(1, 6):
        time |= (word >> np.uint64(i)) & np.uint64(0x7F << 7 * i)
    return time.view(np.int64), is_time
