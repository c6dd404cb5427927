"""Rows of the log: one integer says topic, partition and offset of a record."""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

OFFSET_BITS = 40
PARTITION_BITS = 12
OFFSET_MASK = (1 << OFFSET_BITS) - 1
ROWS_AT_ONCE = 64
"""Rows of one statement: SQLite before 3.32 takes 999 values."""
_VALUES = "(?,?,?,?,?,?,?,?)"


class Append(NamedTuple):
    """One record to write; `tp` as `Store.tp` gives it, `offset` chosen by the owner."""

    tp: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | memoryview | None


class Stored(NamedTuple):
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


def insert(db: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> None:
    """Insert rows of the log by one statement.

    Each step of a statement lets go of Python's lock, and has to wait for it again: where the process is
    busy, a statement for every row cost more than all else here.
    """
    values = ",".join([_VALUES] * len(rows))
    db.execute(f"INSERT INTO log VALUES{values}", [value for row in rows for value in row])


def row_of(record: Append) -> int:
    return record.tp << OFFSET_BITS | record.offset


def span(tp: int) -> tuple[int, int]:
    return tp << OFFSET_BITS, tp << OFFSET_BITS | OFFSET_MASK
