"""Time series read one by one: new ones, and those that do not fit the pattern of the hot path."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openanomaly.adapters.remote_write.columns import PARTS_LIMIT, Refused, check_count
from openanomaly.adapters.remote_write.histograms import Histogram, fault
from openanomaly.core.identity import shown
from openanomaly.core.series import Labels
from openanomaly.errors import RequestTooLargeError

_SMALL_BYTES = 64 << 10
"""What a time series this small becomes is bounded as it is."""
PART_BYTES = 1 << 20
"""Of one label, sample, histogram or exemplar of a time series, or of all references to labels."""


@dataclass(slots=True)
class Whole:
    """A time series with all it has.

    Attributes:
        labels: as the sender ordered them.
        histograms: consistent ones.
        block: the label block as sent; empty with 2.0.
        fault: why its labels cannot be, or "".
    """

    labels: Labels
    timestamp_ms: list[int]
    value: list[float]
    histograms: int = 0
    exemplars: int = 0
    block: bytes = b""
    fault: str = ""

    def refuse(self, reason: str, refused: Refused) -> None:
        """Count all of it as refused."""
        refused.add(
            reason if not self.fault else f"{shown(self.labels)}: {reason}",
            len(self.value),
            self.histograms,
            self.exemplars,
        )


def check_parts(data: bytes) -> None:
    """Refuse a time series of too many or too large parts before it is read whole: what has two bytes on
    the wire has fifty when it is read.

    Raises:
        RequestTooLargeError: it must be sent in smaller ones.
    """
    if len(data) <= _SMALL_BYTES:
        return
    at = count = 0
    while at < len(data):
        tag, at = _varint(data, at)
        count += 1
        if tag & 7 == 2:
            size, at = _varint(data, at)
            if size > PART_BYTES:
                raise RequestTooLargeError(
                    f"cannot take write request: a time series has a part of {size} bytes, limit {PART_BYTES}"
                )
            at += size
        elif tag & 7 == 0:
            _, at = _varint(data, at)
        else:
            at += 8 if tag & 7 == 1 else 4
        if count > PARTS_LIMIT:
            check_count(count, "parts of one time series", PARTS_LIMIT)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number and what follows it; of what is cut off, or is none, anything: it is found when it is read."""
    number = shift = 0
    for byte in data[at : at + 10]:
        number |= (byte & 0x7F) << shift
        shift += 7
        at += 1
        if byte < 0x80:
            return number, at
    return number, at + 1


def count_histograms(labels: Labels, found: Iterable[Histogram], refused: Refused) -> int:
    """How many histograms are consistent; the others are refused."""
    good = 0
    for h in found:
        if wrong := fault(h):
            refused.add(f"{shown(labels)}: histogram at {h.timestamp}: {wrong}", histograms=1)
        else:
            good += 1
    return good


def spread(
    timestamp_ms: NDArray[np.int64],
    value: NDArray[np.float64],
    slot: NDArray[np.int32],
    whole: Mapping[int, Whole],
) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.float64]]:
    """Rows, timestamps and values of samples: one per series but for those that were read whole.

    Series without a slot have none.
    """
    row = np.arange(len(slot), dtype=np.uint32)
    if not whole:
        return row, timestamp_ms, value
    count = np.ones(len(slot), np.int64)
    for i, ts in whole.items():
        count[i] = len(ts.value) if slot[i] >= 0 else 0
    start = np.cumsum(count) - count
    row = np.repeat(row, count)
    timestamp_ms, value = np.repeat(timestamp_ms, count), np.repeat(value, count)
    for i, ts in whole.items():
        if n := count[i]:
            timestamp_ms[start[i] : start[i] + n] = ts.timestamp_ms
            value[start[i] : start[i] + n] = ts.value
    return row, timestamp_ms, value


def text(raw: bytes) -> str:
    """Bytes that should have been UTF-8, for a message."""
    return raw.decode(errors="backslashreplace")
