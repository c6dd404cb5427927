"""Growable columns: a structure of arrays over the rows of a block."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

STATE_PAGE = 1024
"""Rows of a page of row state or catalogue: below the broker's message limit with room to spare."""
PART = 16
"""Rows of which the state is never torn apart: parts of a page are multiples of it."""
RING_PAGE = 8192
"""Rows of a page of the rings."""

NONE = np.iinfo(np.int64).min // 2
"""No bucket, no time: before all of them."""
NEVER = np.iinfo(np.int64).min // 4
"""The bucket of what was never written."""
LATEST_MS = (1 << 42) - 1
"""Year 2109; keeps the keys of the prefix maximum in buckets.py below 63 bits."""

Rows = NDArray[np.int64]


class Column(NamedTuple):
    """One column: its name, element type and what a fresh row holds."""

    name: str
    dtype: str
    fill: float | int
    tail: tuple[int, ...] = ()


class Columns:
    """Arrays of equal capacity that grow together.

    Fresh memory comes from the operating system as zeros and is only touched where rows are used,
    so doubling costs address space, not memory.
    """

    def __init__(self, columns: Iterable[Column], capacity: int = STATE_PAGE) -> None:
        self.columns = tuple(columns)
        self.capacity = capacity
        self._arrays: dict[str, NDArray[Any]] = {c.name: _fresh(c, capacity) for c in self.columns}

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def grow(self, rows: int) -> bool:
        """Make room for `rows`; True if arrays were replaced, so that references must be renewed."""
        if rows <= self.capacity:
            return False
        capacity = self.capacity
        while capacity < rows:
            capacity *= 2
        for column in self.columns:
            old = self._arrays[column.name]
            new = np.zeros((capacity, *column.tail), column.dtype)
            new[: self.capacity] = old
            if column.fill != 0:
                new[self.capacity :] = column.fill
            self._arrays[column.name] = new
        self.capacity = capacity
        return True

    def reset(self, rows: Rows) -> None:
        """Make rows fresh again."""
        for column in self.columns:
            self._arrays[column.name][rows] = column.fill

    def copy(self, rows: Rows, source: "Columns", of: Rows) -> None:
        """Make `rows` what the rows `of` of another structure of the same columns are."""
        for column in self.columns:
            self._arrays[column.name][rows] = source[column.name][of]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row over all columns."""
        return sum(a.nbytes for a in self._arrays.values()) // self.capacity


def _fresh(column: Column, capacity: int) -> NDArray[Any]:
    shape = (capacity, *column.tail)
    return np.zeros(shape, column.dtype) if column.fill == 0 else np.full(shape, column.fill, column.dtype)


def as_slice(rows: Rows) -> slice | Rows:
    """`rows` (ascending, unique) as a slice where they are contiguous: dense access is far cheaper."""
    if rows.size and rows[-1] - rows[0] + 1 == rows.size:
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def part_slot(first: int, rows: int) -> int:
    """The slot in the key of a part of a page: `rows` of them from `first` on.

    No part takes the place of a whole page or of a part of another size: where only some of a page's parts
    were written before a crash, the log still has what it was before. Whatever is written last holds.
    """
    return first << 16 | rows
