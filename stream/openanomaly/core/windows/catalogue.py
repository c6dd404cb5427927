"""Which series owns which row of a block."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import cramjam
import numpy as np
from numpy.typing import NDArray

from openanomaly.core.fields import MOST_BYTES, column, parse
from openanomaly.core.idtable import MISSING, IdTable
from openanomaly.core.series import Ids
from openanomaly.core.series_column import SeriesColumn, compress_labels
from openanomaly.core.windows.rows import STATE_PAGE, Column, Columns, Rows, part_slot
from openanomaly.errors import MalformedFrameError
from openanomaly.pb.openanomaly.v1 import changelog_pb2 as pb

VERSION = 2
"""1 of whole pages, 2 of parts of one: see records.py."""
FREE = np.iinfo(np.int64).max
"""`born` of a row that nobody owns."""
UNWANTED = np.iinfo(np.int32).max
"""Row of a series that was looked at and is not for this block."""


class Catalogue:
    """Rows of one block and their series: ids, labels, generation, first bucket, base and kind.

    A row that is evicted is free for another series under the next generation. What was sent under
    the old one (a due context, a forecast) carries that and is recognised.
    """

    def __init__(self, block: int, specification: str) -> None:
        self._block = block
        self._specification = specification
        self._table = IdTable()
        self._unwanted = 0
        self._columns = Columns(
            [
                Column("generation", "u4", 0),
                Column("born", "i8", FREE),
                Column("base", "f8", 0),
                Column("kind", "u1", 0),
                Column("id", "u8", 0, (2,)),
            ]
        )
        self.labels: list[bytes] = []
        """Canonical label block of each row, empty where it is free."""
        self._free: list[int] = []
        self._dirty: set[int] = set()
        self._pages: dict[int, SeriesColumn] = {}

    @property
    def rows(self) -> int:
        """Rows in use or free; the rows of the block are 0 to this."""
        return len(self.labels)

    @property
    def live(self) -> int:
        return self.rows - len(self._free)

    @property
    def generation(self) -> NDArray[np.uint32]:
        return self._columns["generation"]

    @property
    def born(self) -> NDArray[np.int64]:
        return self._columns["born"]

    @property
    def base(self) -> NDArray[np.float64]:
        return self._columns["base"]

    @property
    def kind(self) -> NDArray[np.uint8]:
        return self._columns["kind"]

    @property
    def ids(self) -> Ids:
        return self._columns["id"]

    def find(self, ids: Ids) -> NDArray[np.int32]:
        """(S,) rows of series; MISSING for one never seen, UNWANTED for one that is not ours."""
        return self._table.find_places(ids, self.ids[: self.rows])

    def holds(self, ids: Ids) -> NDArray[np.bool_]:
        """(S,) whether series have a row."""
        rows = self.find(ids)
        held: NDArray[np.bool_] = (rows >= 0) & (rows != UNWANTED)
        return held

    def refuse(self, ids: Ids) -> None:
        """Remember that series are not for this block. Bounded: forgotten when they outnumber the rows."""
        if self._unwanted > 4 * self.rows + 65_536:
            self._rebuild()
        self._table.insert(ids, np.full(len(ids), UNWANTED, np.int32))
        self._unwanted += len(ids)

    def admit(
        self,
        ids: Ids,
        labels: Sequence[bytes],
        kind: NDArray[np.uint8],
        born: NDArray[np.int64],
        base: NDArray[np.float64],
        newest: NDArray[np.int64],
    ) -> Rows:
        """Give rows to new series.

        A free row is taken only if its last owner wrote nothing at or after `born` (`newest`, from
        the ring), so that no slot of a stranger can pass for one of the new series.
        """
        n = len(ids)
        free = np.array(self._free, np.int64)
        usable = free[newest[free] < born.min()][:n] if free.size else free
        rows = np.concatenate([usable, np.arange(self.rows, self.rows + n - usable.size)])
        if usable.size:
            taken = set(usable.tolist())
            self._free = [row for row in self._free if row not in taken]
        self.labels.extend([b""] * (n - usable.size))
        self._columns.grow(self.rows)
        rows.sort()
        self.generation[rows] += np.uint32(1)
        self.born[rows], self.base[rows], self.kind[rows], self.ids[rows] = born, base, kind, ids
        for row, label in zip(rows.tolist(), labels, strict=True):
            self.labels[row] = label
        self._table.insert(ids, rows.astype(np.int32))
        self._touch(rows)
        return rows

    def evict(self, rows: Rows) -> None:
        """Take rows from their series."""
        self._table.remove(self.ids[rows])
        self.ids[rows] = 0  # found where they stand, too
        self.born[rows] = FREE
        for row in rows.tolist():
            self.labels[row] = b""
        self._free.extend(rows.tolist())
        self._touch(rows)

    def live_rows(self) -> Rows:
        return np.flatnonzero(self.born[: self.rows] != FREE)

    def series(self, rows: Rows) -> tuple[SeriesColumn, NDArray[np.uint32]]:
        """The series of `rows` (ascending), and the index of each row among them.

        Rows that fill much of one page share the page's column, which is made once.
        """
        first = int(rows[0]) // STATE_PAGE
        if int(rows[-1]) // STATE_PAGE == first and rows.size >= STATE_PAGE // 4:
            page = self._pages.get(first)
            if page is None:
                start = first * STATE_PAGE
                page = self._series(np.arange(start, min(start + STATE_PAGE, self.rows)))
                page = self._pages[first] = replace(page, labels_zstd=compress_labels(page.labels))
            return page, (rows - first * STATE_PAGE).astype(np.uint32)
        return self._series(rows), np.arange(rows.size, dtype=np.uint32)

    def _series(self, rows: Rows) -> SeriesColumn:
        blocks = [self.labels[row] for row in rows.tolist()]
        offset = np.zeros(len(blocks) + 1, np.uint32)
        np.cumsum(list(map(len, blocks)), out=offset[1:])
        return SeriesColumn(self.ids[rows], offset, b"".join(blocks), self.kind[rows])

    def _touch(self, rows: Rows) -> None:
        for page in np.unique(rows // STATE_PAGE).tolist():
            self._dirty.add(page)
            self._pages.pop(page, None)

    def _rebuild(self) -> None:
        live = self.live_rows()
        self._table = IdTable(live.size)
        self._unwanted = 0
        if live.size:
            self._table.insert(self.ids[live], live.astype(np.int32))

    def records(self) -> list[tuple[int, int, bytes]]:
        """(page, slot of the key, record) of every page that changed since the last call."""
        pages, self._dirty = sorted(self._dirty), set()
        return [(page, *part) for page in pages for part in self._parts(page, 0, STATE_PAGE)]

    def all_records(self) -> list[tuple[int, int, bytes]]:
        """The same for every page there is; what changed since the last call of `records` stays so."""
        pages = range(-(-self.rows // STATE_PAGE))
        return [(page, *part) for page in pages for part in self._parts(page, 0, STATE_PAGE)]

    def _parts(self, page: int, first: int, rows: int) -> list[tuple[int, bytes]]:
        """The page as one record, or its halves as far as their labels are too long for that."""
        start = page * STATE_PAGE + first
        if start >= self.rows:
            return []
        slot = 0 if rows == STATE_PAGE else part_slot(first, rows)
        record = self._record(page, start, min(start + rows, self.rows), 2 if slot else 1)
        if len(record) <= MOST_BYTES or rows == 1:
            return [(slot, record)]
        half = rows // 2
        return self._parts(page, first, half) + self._parts(page, first + half, half)

    def _record(self, page: int, start: int, stop: int, version: int) -> bytes:
        series = self._series(np.arange(start, stop))
        return pb.CataloguePage(
            version=version,
            block=self._block,
            page=page,
            generation=self.generation[start:stop].tobytes(),
            born=self.born[start:stop].tobytes(),
            base=self.base[start:stop].tobytes(),
            kind=series.kind.tobytes(),
            id=series.ids.tobytes(),
            label_offset=series.label_offset.tobytes(),
            labels_zstd=compress_labels(series.labels),
            specification=self._specification,
            first=start - page * STATE_PAGE,
        ).SerializeToString()

    def restore(self, record: bytes) -> None:
        """Take over a page from the changelog; `restored` makes the rows findable afterwards."""
        m = parse(pb.CataloguePage, record, VERSION)
        generation = column(m.generation, "<u4", "generations")
        n = len(generation)
        if m.first + n > STATE_PAGE:
            raise MalformedFrameError(f"catalogue page of {n} rows from {m.first} on, {STATE_PAGE} at most")
        offset = column(m.label_offset, "<u4", "label offsets", n + 1).tolist()
        labels = _decompress(m.labels_zstd)
        if offset[-1] != len(labels):
            raise MalformedFrameError(f"labels of {len(labels)} bytes, their offsets say {offset[-1]}")
        start = m.page * STATE_PAGE + m.first
        rows = slice(start, start + n)
        self.labels.extend([b""] * (start + n - self.rows))
        self._columns.grow(self.rows)
        self.generation[rows] = generation
        self.born[rows] = column(m.born, "<i8", "born", n)
        self.base[rows] = column(m.base, "<f8", "bases", n)
        self.kind[rows] = column(m.kind, "u1", "kinds", n)
        self.ids[rows] = column(m.id, "<u8", "ids", 2 * n).reshape(n, 2)
        self.labels[rows] = [labels[a:b] for a, b in pairwise(offset)]
        self._pages.pop(m.page, None)

    def restored(self) -> None:
        """Build the table and the list of free rows once all pages are there."""
        self._rebuild()
        free = np.flatnonzero(self.born[: self.rows] == FREE)
        self.ids[free] = 0
        self._free = free.tolist()


def _decompress(data: bytes) -> bytes:
    try:
        return bytes(cramjam.zstd.decompress(data)) if data else b""
    except cramjam.DecompressionError as exc:
        raise MalformedFrameError(f"labels do not decompress: {exc}") from exc


def missing(rows: NDArray[np.int32]) -> NDArray[np.int64]:
    """Positions of the series that are not in the catalogue."""
    return np.flatnonzero(rows == MISSING)
