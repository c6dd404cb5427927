"""The SQLite file of the log: how it is opened, what tables it has."""

import sqlite3
from pathlib import Path
from typing import Literal

from openanomaly.errors import BrokerError, RetryableError

_VERSION = 1
_QUICK_CHECK_LIMIT_BYTES = 64 << 20

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS topic(id INTEGER PRIMARY KEY, name TEXT UNIQUE, partitions INT, spec TEXT);
CREATE TABLE IF NOT EXISTS log(id INTEGER PRIMARY KEY, ts INT, k BLOB, v BLOB,
    segment INT, position INT, length INT, sum INT);
CREATE TABLE IF NOT EXISTS latest(tp INT, k BLOB, offset INT, PRIMARY KEY(tp, k)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS next(tp INTEGER PRIMARY KEY, offset INT);
CREATE TABLE IF NOT EXISTS committed(grp TEXT, tp INT, offset INT, PRIMARY KEY(grp, tp)) WITHOUT ROWID;
"""


class DiskFullError(RetryableError):
    """The disk, or the share of it we may use, is full."""


def connect(file: Path, synchronous: Literal["FULL", "NORMAL"]) -> sqlite3.Connection:
    """A connection for one thread at a time; transactions are begun and ended by hand."""
    db = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
    try:
        # auto_vacuum must be set before the first table exists.
        for pragma in (
            "auto_vacuum=INCREMENTAL",
            "journal_mode=WAL",
            f"synchronous={synchronous}",
            "cache_size=-32768",
            "journal_size_limit=67108864",
        ):
            db.execute(f"PRAGMA {pragma}")
    except BaseException:
        db.close()
        raise
    return db


def prepare(db: sqlite3.Connection, file: Path) -> None:
    """Make the tables, or check them.

    Raises:
        BrokerError: they are of a newer release.
        sqlite3.DatabaseError: the file is damaged.
    """
    db.executescript(_SCHEMA)
    version = db.execute("SELECT value FROM meta WHERE key='version'").fetchone()
    if version is None:
        db.execute("INSERT INTO meta VALUES('version', ?)", (_VERSION,))
    elif version[0] > _VERSION:
        raise BrokerError(
            f"{file} has format {version[0]}, this release reads up to {_VERSION}: upgrade OpenAnomaly"
        )
    if file.stat().st_size <= _QUICK_CHECK_LIMIT_BYTES:
        # Cheap while small; SQLite itself reports what it meets later (`damaged`).
        result = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if result != "ok":
            raise sqlite3.DatabaseError(result)


def damaged(exc: sqlite3.DatabaseError, file: Path) -> BrokerError:
    """What to say of a file that cannot be read."""
    return BrokerError(
        f"{file} cannot be read: {exc}. Restore {file.parent} from a copy, or move it away to "
        "start empty: unread samples, window state and scores that were not yet sent are lost then."
    )


def translated(exc: sqlite3.DatabaseError, file: Path) -> Exception:
    """Our error for one of SQLite while writing."""
    code = exc.sqlite_errorcode if hasattr(exc, "sqlite_errorcode") else None
    if code is not None and code & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return DiskFullError(f"cannot write to {file}: {exc}")
    if code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return damaged(exc, file)
    return BrokerError(f"cannot write to {file}: {exc}")
