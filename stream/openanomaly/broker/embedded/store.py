"""The log on disk: topics, records, committed offsets. Plain and synchronous.

Three kinds of truth, one place each:
- SQLite (`log.db`, write-ahead log): the index of every record, small payloads, offsets of groups;
- segment files: payloads of `INLINE_BYTES` and more;
- the owner's memory (`broker.py`): the next offset of each partition.

A record's row id is topic, partition and offset in one integer, so a partition is a range of the
clustered table and gaps cost nothing. `write` and everything that changes the log is for one
thread, `read` for another.
"""

import contextlib
import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from openanomaly.broker.embedded.database import DiskFullError, connect, damaged, prepare, translated
from openanomaly.broker.embedded.rows import (
    OFFSET_BITS,
    OFFSET_MASK,
    PARTITION_BITS,
    ROWS_AT_ONCE,
    Append,
    Stored,
    insert,
    row_of,
    span,
)
from openanomaly.broker.embedded.segments import Segments, checksum
from openanomaly.broker.topics import TopicSpec
from openanomaly.errors import BrokerError, ConfigError

INLINE_BYTES = 4096
_DELETE_AT_ONCE = 20_000
_ROW_BYTES = 128
_MEASURED_BYTES = 64 << 10
"""The pages of the database are counted when so much was written."""
_SPARSE = 4
"""A segment of a compacted topic of which less than one in so many bytes lives is written anew."""


class Store:
    """Opens, or creates, the log in `folder`.

    Raises:
        BrokerError: the files are damaged or of a newer release.
    """

    def __init__(self, folder: Path, synchronous: Literal["FULL", "NORMAL"] = "FULL") -> None:
        self.file = folder / "log.db"
        self.topics: dict[str, tuple[int, TopicSpec]] = {}
        self._synchronous = synchronous
        self._specs: dict[int, TopicSpec] = {}
        self._pages_bytes = 0
        self._grown_bytes: int | None = None
        """What was written since the pages were counted; None if anything else has changed."""
        # Reading holds this while rows and the segments they name must agree.
        self._deleting = threading.Lock()
        with contextlib.ExitStack() as opened:
            try:
                self._write = opened.enter_context(contextlib.closing(connect(self.file, synchronous)))
                self._read = opened.enter_context(contextlib.closing(connect(self.file, synchronous)))
                self._open()
            except sqlite3.DatabaseError as exc:
                raise damaged(exc, self.file) from exc
            self.segments = self._open_segments(folder)
            opened.pop_all()  # from here on they are closed by `close`

    def _open_segments(self, folder: Path) -> Segments:
        live = dict(
            self._write.execute(
                "SELECT segment, count(*) FROM log WHERE segment IS NOT NULL GROUP BY segment"
            )
        )
        segments = Segments(folder / "segments", live, max(live, default=0) + 1)
        for number in live:
            if not segments.path(number).exists():
                raise BrokerError(
                    f"{segments.path(number)} is missing: {live[number]} records are in it. "
                    f"Restore {folder} from a copy, or move it away to start empty."
                )
        return segments

    def _open(self) -> None:
        prepare(self._write, self.file)
        for id_, name, _, spec in self._write.execute("SELECT id, name, partitions, spec FROM topic"):
            self._remember(id_, TopicSpec(name, **json.loads(spec)))

    # -- topics --------------------------------------------------------------------------------

    @staticmethod
    def tp(topic: int, partition: int) -> int:
        return topic << PARTITION_BITS | partition

    def _remember(self, id_: int, spec: TopicSpec) -> None:
        self.topics[spec.name] = id_, spec
        self._specs[id_] = spec

    def create(self, spec: TopicSpec) -> None:
        """Create the topic, or take over its new retention.

        Raises:
            ConfigError: it exists with another number of partitions, or compaction.
        """
        fields = {name: getattr(spec, name) for name in TopicSpec.__slots__ if name != "name"}
        if (known := self.topics.get(spec.name)) is not None:
            id_, old = known
            if old.partitions != spec.partitions:
                raise ConfigError(
                    f"topic {spec.name} has {old.partitions} partitions in {self.file.parent}, the setting "
                    f"says {spec.partitions}: set broker.partitions to {old.partitions}, or use another "
                    "broker.url or broker.topic_prefix"
                )
            if old.compact != spec.compact:
                raise ConfigError(
                    f"topic {spec.name} cannot change its compaction from {old.compact} to {spec.compact}"
                )
            if old != spec:
                self._write.execute("UPDATE topic SET spec=? WHERE id=?", (json.dumps(fields), id_))
        else:
            cursor = self._write.execute(
                "INSERT INTO topic(name, partitions, spec) VALUES(?, ?, ?)",
                (spec.name, spec.partitions, json.dumps(fields)),
            )
            assert cursor.lastrowid is not None
            id_ = cursor.lastrowid
        self._remember(id_, spec)

    def next_offsets(self) -> dict[int, int]:
        """The offset each partition's next record takes; never lower than one that was given."""
        result = dict(self._write.execute("SELECT tp, offset FROM next"))
        for id_, spec in self._specs.items():
            for partition in range(spec.partitions):
                tp = self.tp(id_, partition)
                last = self._write.execute(
                    "SELECT max(id) FROM log WHERE id BETWEEN ? AND ?", span(tp)
                ).fetchone()[0]
                after = 0 if last is None else (last & OFFSET_MASK) + 1
                result[tp] = max(result.get(tp, 0), after)
        return result

    # -- records -------------------------------------------------------------------------------

    def write(self, records: Sequence[Append]) -> None:
        """Write all records in one durable transaction, or none.

        Raises:
            DiskFullError: there is no space; the same may pass later.
            BrokerError: the log is damaged.
        """
        undo: list[tuple[int, int, int]] = []
        try:
            rows = self._rows(records, undo)
            if self._synchronous == "FULL":
                self.segments.sync({number for number, _, _ in undo})
            self._transaction(rows, [r for r in records if self._specs[r.tp >> PARTITION_BITS].compact])
        except BaseException as exc:
            for number, start, count in reversed(undo):
                self.segments.undo(number, start, count)
            if isinstance(exc, OSError):
                raise self._full(exc) from exc
            raise

    def _rows(self, records: Sequence[Append], undo: list[tuple[int, int, int]]) -> list[tuple[object, ...]]:
        rows: list[tuple[object, ...]] = []
        large: dict[int, list[Append]] = {}
        inline_bytes = 0
        for record in records:
            topic = record.tp >> PARTITION_BITS
            if record.value is None or len(record.value) < INLINE_BYTES:
                rows.append(
                    (row_of(record), record.timestamp_ms, record.key, record.value, None, None, None, None)
                )
                inline_bytes += len(record.value or b"")
            else:
                large.setdefault(topic, []).append(record)
        for topic, group in large.items():
            payloads = [r.value for r in group if r.value is not None]
            number, positions = self.segments.append(topic, payloads)
            undo.append((number, positions[0], len(payloads)))
            for r, payload, position in zip(group, payloads, positions, strict=True):
                where = (number, position, len(payload), checksum(payload))
                rows.append((row_of(r), r.timestamp_ms, r.key, None, *where))
        if self._grown_bytes is not None:
            self._grown_bytes += inline_bytes + _ROW_BYTES * len(records)
        return rows

    def _transaction(self, rows: list[tuple[object, ...]], compacted: list[Append]) -> None:
        db = self._write
        gone: Counter[int] = Counter()
        try:
            if rows and not compacted and len(rows) <= ROWS_AT_ONCE:
                insert(db, rows)  # one statement is a transaction of its own
                return
            with self._deleting if compacted else contextlib.nullcontext():
                db.execute("BEGIN IMMEDIATE")
                try:
                    for first in range(0, len(rows), ROWS_AT_ONCE):
                        insert(db, rows[first : first + ROWS_AT_ONCE])
                    for record in compacted:
                        self._supersede(record, gone)
                    db.execute("COMMIT")
                except BaseException:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
                    raise
                for segment, records in gone.items():
                    self.segments.forget(segment, records)
        except sqlite3.DatabaseError as exc:
            raise translated(exc, self.file) from exc

    def _supersede(self, record: Append, gone: Counter[int]) -> None:
        """Compaction at write time: the key's previous record goes in the same transaction."""
        if record.key is None:
            return
        db, place = self._write, (record.tp, record.key)
        old = db.execute("SELECT offset FROM latest WHERE tp=? AND k=?", place).fetchone()
        if old is not None:
            row = (record.tp << OFFSET_BITS | old[0],)
            held = db.execute("SELECT segment FROM log WHERE id=?", row).fetchone()
            if held is not None and held[0] is not None:
                gone[held[0]] += 1
            db.execute("DELETE FROM log WHERE id=?", row)
        db.execute("REPLACE INTO latest VALUES(?, ?, ?)", (*place, record.offset))

    def _full(self, exc: OSError) -> DiskFullError:
        return DiskFullError(f"cannot write to {self.segments.path(0).parent}: {exc.strerror}")

    def read(self, tp: int, start: int, end: int, max_records: int, max_bytes: int) -> list[Stored]:
        """Records with `start <= offset < end` in order, up to a count and about `max_bytes`.

        Raises:
            BrokerError: the log is damaged.
        """
        out, size, base = [], 0, tp << OFFSET_BITS
        with self._deleting:
            try:
                rows = self._read.execute(
                    "SELECT id, ts, k, v, segment, position, length, sum FROM log WHERE id >= ? AND id < ? "
                    "ORDER BY id LIMIT ?",
                    (base | start, base + end, max_records),
                )
                for id_, ts, key, value, segment, position, length, expected in rows:
                    if segment is not None:
                        value = self.segments.read(segment, position, length, expected)
                    out.append(Stored(id_ & OFFSET_MASK, ts, key, value))
                    size += len(value or b"")
                    if size >= max_bytes:
                        break
            except sqlite3.DatabaseError as exc:
                raise damaged(exc, self.file) from exc
            except FileNotFoundError as exc:
                raise BrokerError(
                    f"{exc.filename} is missing: restore {self.file.parent} from a copy"
                ) from exc
        return out

    def earliest(self, tps: Iterable[int], following: Mapping[int, int]) -> dict[int, int]:
        """First offset there is of each partition; `following[tp]` where there is none."""
        result = {}
        for tp in tps:
            first = self._write.execute(
                "SELECT min(id) FROM log WHERE id BETWEEN ? AND ?", span(tp)
            ).fetchone()[0]
            result[tp] = following[tp] if first is None else first & OFFSET_MASK
        return result

    # -- groups --------------------------------------------------------------------------------

    def commit(self, group: str, offsets: Mapping[int, int]) -> None:
        try:
            self._write.execute("BEGIN IMMEDIATE")
            self._write.executemany(
                "INSERT INTO committed VALUES(?, ?, ?) "
                "ON CONFLICT(grp, tp) DO UPDATE SET offset=max(offset, excluded.offset)",
                [(group, tp, offset) for tp, offset in offsets.items()],
            )
            self._write.execute("COMMIT")
        except sqlite3.DatabaseError as exc:
            if self._write.in_transaction:
                self._write.execute("ROLLBACK")
            raise translated(exc, self.file) from exc

    def committed(self) -> dict[str, dict[int, int]]:
        """Committed offsets of every group."""
        groups: dict[str, dict[int, int]] = {}
        for group, tp, offset in self._write.execute("SELECT grp, tp, offset FROM committed"):
            groups.setdefault(group, {})[tp] = offset
        return groups

    # -- deletion ------------------------------------------------------------------------------

    def first_after(self, tp: int, end: int, timestamp_ms: int) -> int:
        """The first offset below `end` that was written at `timestamp_ms` or later; `end` if none."""
        low, _ = span(tp)
        row = self._write.execute(
            "SELECT id FROM log WHERE id >= ? AND id < ? AND ts >= ? ORDER BY id LIMIT 1",
            (low, low + end, timestamp_ms),
        ).fetchone()
        return end if row is None else row[0] & OFFSET_MASK

    def delete_before(self, tp: int, offset: int, following: int) -> bool:
        """Delete records below `offset`; True if some are left for another call.

        `following`, the partition's next offset, is kept so that offsets do not begin anew when
        the last record goes.
        """
        low, db = tp << OFFSET_BITS, self._write
        bound = db.execute(
            "SELECT id FROM log WHERE id >= ? AND id < ? ORDER BY id LIMIT 1 OFFSET ?",
            (low, low + offset, _DELETE_AT_ONCE),
        ).fetchone()
        high = low + offset if bound is None else bound[0]
        gone = db.execute(
            "SELECT segment, count(*) FROM log WHERE id >= ? AND id < ? GROUP BY segment", (low, high)
        ).fetchall()
        if not gone:
            return False
        try:
            with self._deleting:
                db.execute("BEGIN IMMEDIATE")
                db.execute("DELETE FROM log WHERE id >= ? AND id < ?", (low, high))
                db.execute("REPLACE INTO next VALUES(?, ?)", (tp, following))
                db.execute("COMMIT")
                for segment, records in gone:
                    if segment is not None:
                        self.segments.forget(segment, records)
        except sqlite3.DatabaseError as exc:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise translated(exc, self.file) from exc
        return bound is not None

    def tidy(self) -> None:
        """Give freed space back to the disk, a little at a time."""
        self._grown_bytes = None
        self.segments.seal_idle()
        for id_, spec in list(self._specs.items()):
            if spec.compact:
                self._clean(id_)
        self._write.execute("PRAGMA incremental_vacuum(2000)").fetchall()

    def _clean(self, topic: int) -> None:
        """Write what lives of one sparse segment into the open one: superseded records leave holes."""
        low, high = topic << PARTITION_BITS << OFFSET_BITS, (topic + 1) << PARTITION_BITS << OFFSET_BITS
        live = self._write.execute(
            "SELECT segment, sum(length) FROM log WHERE id >= ? AND id < ? AND segment IS NOT NULL "
            "GROUP BY segment",
            (low, high),
        ).fetchall()
        sparse = [
            n for n, size in live if self.segments.is_sealed(n) and size * _SPARSE < self.segments.size(n)
        ]
        if not sparse:
            return
        rows = self._write.execute(
            "SELECT id, position, length, sum FROM log WHERE id >= ? AND id < ? AND segment = ?",
            (low, high, sparse[0]),
        ).fetchall()
        payloads = [self.segments.read(sparse[0], *where) for _, *where in rows]
        try:
            number, positions = self.segments.append(topic, payloads)
        except OSError as exc:
            raise self._full(exc) from exc
        try:
            self.segments.sync({number})
            with self._deleting:
                self._write.execute("BEGIN IMMEDIATE")
                self._write.executemany(
                    "UPDATE log SET segment=?, position=? WHERE id=?",
                    [(number, at, id_) for at, (id_, *_) in zip(positions, rows, strict=True)],
                )
                self._write.execute("COMMIT")
                self.segments.forget(sparse[0], len(rows))
        except BaseException as exc:
            if self._write.in_transaction:
                self._write.execute("ROLLBACK")
            self.segments.undo(number, positions[0], len(rows))
            if isinstance(exc, sqlite3.DatabaseError):
                raise translated(exc, self.file) from exc
            if isinstance(exc, OSError):
                raise self._full(exc) from exc
            raise

    @property
    def used_bytes(self) -> int:
        """Bytes in use: segments, and pages of the database that hold something (about: what came since)."""
        if self._grown_bytes is None or self._grown_bytes > _MEASURED_BYTES:
            pages = self._pragma("page_count") - self._pragma("freelist_count")
            self._pages_bytes, self._grown_bytes = pages * self._pragma("page_size"), 0
        return self.segments.used_bytes + self._pages_bytes + self._grown_bytes

    def _pragma(self, name: str) -> int:
        return int(self._write.execute(f"PRAGMA {name}").fetchone()[0])

    def close(self) -> None:
        self.segments.close()
        self._read.close()
        try:
            # For tidiness only: the write-ahead log is as durable, and a full disk has no room for more.
            with contextlib.suppress(sqlite3.OperationalError):
                self._write.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self._write.close()
