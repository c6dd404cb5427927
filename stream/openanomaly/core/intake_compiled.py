"""Compiled twin of `Intake.take` for usual requests: of known series that are all wanted, one sample each."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openanomaly.core import kernels

_NONE = np.zeros(0, np.uint8)


class Series(NamedTuple):
    """What is known of S series; `due` are those whose labels go along."""

    ids: NDArray[np.uint64]
    partition: NDArray[np.uint16]
    kind: NDArray[np.uint8]
    due: NDArray[np.int64]


@kernels.jit()
def _look_up(
    words: Any,
    slot: Any,
    row: Any,
    timestamp_ms: Any,
    told: Any,
    kinds: Any,
    now_s: int,
    latest_ms: int,
    ids: Any,
    partition: Any,
    kind: Any,
    due: Any,
) -> int:
    """How many are due; -1 if any series or sample is not usual. `words` are records as identity.ENTRY is."""
    low = np.uint64(0xFFFFFFFF)
    found = 0
    for i in range(len(slot)):
        s = slot[i]
        if s < 0 or s >= len(words) or row[i] != i or timestamp_ms[i] > latest_ms:
            return -1
        about = words[s, 4]
        if about & np.uint64(0xFF0000) == 0:
            return -1
        family = np.int64(words[s, 2] & low)
        if family >= len(kinds):
            return -1
        if len(told) and told[i] != 0 and family != 0 and told[i] != kinds[family]:
            return -1
        ids[i, 0], ids[i, 1] = words[s, 0], words[s, 1]
        partition[i] = about & np.uint64(0xFFFF)
        kind[i] = kinds[family]
        labels_due = words[s, 3] >> np.uint64(32)
        words[s, 3] = labels_due << np.uint64(32) | np.uint64(now_s)
        if np.int64(labels_due) <= now_s:
            due[found] = i
            found += 1
    return found


def look_up(
    entries: NDArray[np.void],
    slot: NDArray[np.int32],
    row: NDArray[np.uint32],
    timestamp_ms: NDArray[np.int64],
    told: NDArray[np.uint8] | None,
    kinds: NDArray[np.uint8],
    now_s: int,
    latest_ms: int,
) -> Series | None:
    """What is known of S series, which are then seen; None if any of it is not usual.

    Args:
        entries: records of Identities.
        slot: (S,) places there.
        row, timestamp_ms: (N,) of the samples.
        told: (S,) SeriesKind that came with the series, or None.
        kinds: SeriesKind by number of family.
    """
    n = len(slot)
    if len(row) != n or not 0 <= now_s < 1 << 32:
        return None
    words = entries.view(np.uint64).reshape(len(entries), -1)
    found = Series(
        np.empty((n, 2), np.uint64), np.empty(n, np.uint16), np.empty(n, np.uint8), np.empty(n, np.int64)
    )
    columns = slot, row, kernels.plain(timestamp_ms), _NONE if told is None else kernels.plain(told), kinds
    due = _look_up(words, *columns, now_s, latest_ms, *found)
    return None if due < 0 else found._replace(due=found.due[:due])


@kernels.compiles
def _compile() -> None:
    entries, one = np.zeros(1, "V40"), np.zeros(1, np.uint8)
    slot, row, times = np.zeros(1, np.int32), np.zeros(1, np.uint32), np.zeros(1, np.int64)
    look_up(entries, slot, row, times, one, one, 1, 1)
