"""The last steps of every row of a block, as float32 relative to the row's base."""

import numpy as np
from numpy.typing import NDArray

from openanomaly.core import kernels
from openanomaly.core.contexts import Contexts
from openanomaly.core.windows.compiled import rings
from openanomaly.core.windows.rows import NEVER, Column, Columns, Rows

MARGIN = 32
"""Slots beyond the window. After a crash the rings are ahead of the row state by what closed since
the last checkpoint; the oldest steps of a window must outlive that."""


class Ring:
    """(rows, length + margin) float32; the slot of bucket b is b mod (length + margin).

    Steps of a row that nobody wrote between two that were are missing and read as NaN. `newest` is
    the last bucket written of each row, `first` the one from which on its slots are known: a changelog
    that was read from the middle knows nothing of the steps before.
    """

    def __init__(self, length: int, margin: int = MARGIN) -> None:
        self.length = length
        self.slots = length + margin
        self._columns = Columns(
            [
                Column("data", "f4", 0, (self.slots,)),
                Column("newest", "i8", NEVER),
                Column("first", "i8", NEVER),
            ]
        )

    def grow(self, rows: int) -> None:
        self._columns.grow(rows)

    @property
    def is_written(self) -> bool:
        """Whether any row has a step."""
        return bool((self.newest > NEVER).any())

    @property
    def newest(self) -> NDArray[np.int64]:
        return self._columns["newest"]

    @property
    def first(self) -> NDArray[np.int64]:
        return self._columns["first"]

    @property
    def data(self) -> NDArray[np.float32]:
        return self._columns["data"]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self._columns.row_bytes

    def copy(self, rows: Rows, source: "Ring", of: Rows) -> None:
        """Make `rows` what the rows `of` of a ring of the same length are."""
        self._columns.copy(rows, source._columns, of)

    def put(self, rows: Rows, bucket: NDArray[np.int64], value: NDArray[np.float32]) -> None:
        """Write one step of each of `rows`, which differ; steps skipped since become NaN.

        A step older than the ring reaches is ignored: it is the replay of what has been overwritten.
        """
        data, newest = self._columns["data"], self._columns["newest"]
        if kernels.WINDOWS.ready():
            rings.put(data, newest, self._columns["first"], rows, bucket, value)
            return
        last = newest[rows]
        gap = np.flatnonzero((bucket > last + 1) & (last > NEVER))
        if gap.size:
            self._skip(rows[gap], last[gap] + 1, bucket[gap])
        if (unknown := last == NEVER).any():
            self._columns["first"][rows[unknown]] = bucket[unknown]
        if rows.size and (old := bucket <= last - self.slots).any():
            rows, bucket, value, last = rows[~old], bucket[~old], value[~old], last[~old]
        if not rows.size:
            return
        first = bucket[0]
        if (bucket == first).all():
            slot = int(first % self.slots)
            if rows[-1] - rows[0] + 1 == rows.size:
                data[int(rows[0]) : int(rows[-1]) + 1, slot] = value
            else:
                data[rows, slot] = value
        else:
            data[rows, bucket % self.slots] = value
        newest[rows] = np.maximum(last, bucket)

    def put_many(
        self, rows: Rows, bucket: NDArray[np.int64], value: NDArray[np.float32], start: int, stop: int
    ) -> None:
        """Write many steps of rows: what as many calls of `put` would, one for each bucket.

        Args:
            rows: (N,) ascending; the buckets of a row ascend.
            start, stop: all buckets are in [start, stop), which is behind what the rows have, and no longer
                than the margin.
        """
        data, newest = self._columns["data"], self._columns["newest"]
        begin = np.flatnonzero(np.diff(rows, prepend=-1))
        each, end = rows[begin], np.append(begin[1:], rows.size) - 1
        last, final = newest[each], bucket[end]
        for i in np.flatnonzero((last < start - 1) & (last > NEVER)).tolist():  # silent for a while
            gap = np.arange(max(int(last[i]) + 1, int(final[i]) - self.slots + 1), start)
            data[each[i], gap % self.slots] = np.nan
        if (unknown := last == NEVER).any():
            self._columns["first"][each[unknown]] = bucket[begin[unknown]]
        # What is overwritten behind the newest step of a row is older than any window that will be asked for.
        slots = np.arange(start, stop) % self.slots
        grid = np.full((each.size, slots.size), np.nan, np.float32)
        place = np.repeat(np.arange(each.size), end - begin + 1)
        grid[place, bucket - start] = value
        data[np.ix_(each, slots)] = grid
        newest[each] = final

    def _skip(self, rows: Rows, start: NDArray[np.int64], stop: NDArray[np.int64]) -> None:
        """Write NaN to buckets [start, stop) of rows."""
        data = self._columns["data"]
        start = np.maximum(start, stop - self.slots)
        for step in range(int((stop - start).max())):
            here = start + step < stop
            data[rows[here], (start[here] + step) % self.slots] = np.nan

    def windows(
        self, rows: Rows, end: NDArray[np.int64], born: NDArray[np.int64], length: int | None = None
    ) -> NDArray[np.float32]:
        """(n, length) windows that end at bucket `end` of each row, oldest first.

        Steps before `born` are another row's or nobody's, and read as NaN; so do those that a newer
        step has overwritten.
        """
        length = self.length if length is None else length
        if not len(rows):
            return np.empty((0, length), np.float32)
        if (end == end[0]).all():
            out = self._ending(rows, int(end[0]), length)
        else:
            out = np.empty((len(rows), length), np.float32)
            order = np.argsort(end, kind="stable")
            edges = np.flatnonzero(np.diff(end[order])) + 1
            for group in np.split(order, edges):
                out[group] = self._ending(rows[group], int(end[group[0]]), length)
        newest = self.newest[rows]
        oldest = np.maximum(np.maximum(born, self._columns["first"][rows]), newest - self.slots + 1)
        missing = oldest - (end - length + 1)  # steps at the head of each window that are not the row's
        young = np.flatnonzero(missing > 0)
        if young.size:
            head = np.arange(length) < missing[young, None]
            if young.size == len(rows):
                np.copyto(out, np.float32(np.nan), where=head)
            else:
                out[young] = np.where(head, np.float32(np.nan), out[young])
        return out

    def contexts(
        self, rows: Rows, end: NDArray[np.int64], born: NDArray[np.int64]
    ) -> tuple[Contexts, NDArray[np.int64]]:
        """The windows that end at bucket `end` of each row, packed, and how many steps of each are there."""
        if kernels.WINDOWS.ready():
            c = self._columns
            return rings.pack(c["data"], c["newest"], c["first"], rows, end, born, self.length)
        found = self.windows(rows, end, born)
        return Contexts.pack(found), np.isfinite(found).sum(axis=1)

    def _ending(self, rows: Rows, end: int, length: int) -> NDArray[np.float32]:
        """(n, length) what the slots before and at bucket `end` hold."""
        data = self._columns["data"]
        stop = (end + 1) % self.slots
        start = stop - length
        found: NDArray[np.float32]
        if start >= 0:
            found = data[rows, start:stop]
        else:
            found = np.empty((len(rows), length), np.float32)
            found[:, :-start] = data[rows, start:]
            found[:, -start:] = data[rows, :stop]
        return found
