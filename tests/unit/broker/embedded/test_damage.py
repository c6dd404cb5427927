"""Damaged files are reported by name, and nothing of them is served."""

import asyncio
import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from logs import everything, opened
from openanomaly.broker.embedded.broker import Broker
from openanomaly.errors import BrokerError

LARGE = bytes(range(256)) * 200


def _filled(folder: Path, records: int = 50) -> None:
    async def go() -> None:
        async with opened(folder) as broker:
            for _ in range(records):
                await asyncio.gather(
                    broker.append("kept", 0, b"key", LARGE), broker.append("plain", 1, b"key", b"v" * 2000)
                )

    asyncio.run(go())


def _segment(folder: Path) -> Path:
    (path,) = (folder / "segments").glob("*.seg")
    return path


def _read_kept(folder: Path) -> int:
    async def go() -> int:
        async with opened(folder) as broker:
            return len(await everything(broker, "kept"))

    return asyncio.run(go())


def test_one_flipped_bit_in_a_segment(tmp_path: Path) -> None:
    _filled(tmp_path)
    path = _segment(tmp_path)
    content = bytearray(path.read_bytes())
    content[30 * len(LARGE) + 77] ^= 4
    path.write_bytes(content)

    async def go() -> None:
        async with opened(tmp_path) as broker:
            with pytest.raises(BrokerError, match=f"{path} is damaged at byte {30 * len(LARGE)}"):
                await everything(broker, "kept")
            # What is whole can be read, and the log goes on.
            assert len((await broker.fetch({("kept", 0): 31}, 100, 10_000_000))["kept", 0]) == 19
            assert await broker.append("kept", 0, None, LARGE) == 50

    asyncio.run(go())


def test_a_shortened_segment(tmp_path: Path) -> None:
    _filled(tmp_path)
    with _segment(tmp_path).open("r+b") as file:
        file.truncate(20 * len(LARGE) + 5)
    with pytest.raises(BrokerError, match=r"\.seg is damaged at byte"):
        _read_kept(tmp_path)


def test_a_segment_that_is_gone(tmp_path: Path) -> None:
    _filled(tmp_path)
    path = _segment(tmp_path)
    path.unlink()
    with pytest.raises(BrokerError, match=f"{path} is missing: 50 records are in it"):
        Broker(tmp_path)


def test_an_index_that_is_no_database(tmp_path: Path) -> None:
    _filled(tmp_path)
    (tmp_path / "log.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(BrokerError, match=f"{tmp_path / 'log.db'} cannot be read: .*Restore"):
        Broker(tmp_path)


def test_a_broken_page_of_the_index(tmp_path: Path) -> None:
    _filled(tmp_path)
    path = tmp_path / "log.db"
    content = bytearray(path.read_bytes())
    for page in range(2 * 4096, len(content), 4096):
        content[page : page + 64] = b"\xa5" * 64
    path.write_bytes(content)
    with pytest.raises(BrokerError, match=f"{path} cannot be read: "):
        Broker(tmp_path)


def test_a_refused_folder_can_be_opened_by_another_process_afterwards(tmp_path: Path) -> None:
    _filled(tmp_path, 1)
    path = _segment(tmp_path)
    moved = path.rename(path.with_suffix(".moved"))
    with pytest.raises(BrokerError, match="is missing"):
        Broker(tmp_path)
    moved.rename(path)
    assert _read_kept(tmp_path) == 1


def _no_database(folder: Path) -> None:
    (folder / "log.db").write_bytes(b"not a database" * 1000)


def _newer(folder: Path) -> None:
    with contextlib.closing(sqlite3.connect(folder / "log.db", isolation_level=None)) as db:
        db.execute("UPDATE meta SET value=99 WHERE key='version'")


def _other_table(folder: Path) -> None:
    with contextlib.closing(sqlite3.connect(folder / "log.db", isolation_level=None)) as db:
        db.execute("DROP TABLE committed")
        db.execute("CREATE TABLE committed(another INT)")


def _gone_segment(folder: Path) -> None:
    _segment(folder).unlink()


@pytest.mark.parametrize("damage", [_no_database, _newer, _other_table, _gone_segment])
def test_what_cannot_be_opened_leaves_no_file_open(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    _filled(tmp_path, 1)
    damage(tmp_path)
    with pytest.raises((BrokerError, sqlite3.Error)) as caught:
        Broker(tmp_path)
    open_files = [fd.resolve() for fd in Path("/proc/self/fd").iterdir()]
    assert [file for file in open_files if file.is_relative_to(tmp_path)] == []
    assert caught.value is not None  # alive so far, and with it all that its traceback refers to


def test_an_index_of_a_newer_release(tmp_path: Path) -> None:
    _filled(tmp_path, 1)
    with sqlite3.connect(tmp_path / "log.db") as db:
        db.execute("UPDATE meta SET value=99 WHERE key='version'")
    db.close()
    with pytest.raises(BrokerError, match=r"has format 99, this release reads up to 1: upgrade"):
        Broker(tmp_path)


def test_leftovers_of_a_crash_are_removed(tmp_path: Path) -> None:
    _filled(tmp_path, 1)
    stray = tmp_path / "segments" / "000000000099.seg"
    stray.write_bytes(b"written, never committed")
    assert _read_kept(tmp_path) == 1
    assert not stray.exists()


@pytest.mark.parametrize("cut_bytes", [1, 20, 4000, 5000, 30_000, 10_000_000])
def test_a_log_that_a_power_loss_took_the_end_of_starts_and_goes_on(tmp_path: Path, cut_bytes: int) -> None:
    """What was synced is there, and what was not may be gone: the index's end, or payloads without rows."""
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    _filled(whole, 5)

    async def crash() -> int:
        async with opened(whole) as broker:
            for _ in range(20):
                await asyncio.gather(*(broker.append(t, 0, b"key", LARGE) for t in ("kept", "plain")))
            shutil.copytree(whole, torn)
            return broker.high_water(("kept", 0))

    written = asyncio.run(crash())
    log = torn / "log.db-wal"
    with log.open("r+b") as file:
        file.truncate(max(0, log.stat().st_size - cut_bytes))
    for segment in (torn / "segments").glob("*.seg"):
        with segment.open("ab") as file:
            file.write(b"half a payload")

    async def go() -> None:
        async with opened(torn) as broker:
            records = await everything(broker, "kept")
            assert [r.offset for r in records] == list(range(len(records)))
            assert {r.value for r in records} == {LARGE}
            assert 5 <= len(records) <= written
            assert await broker.append("kept", 0, None, LARGE) == len(records)

    asyncio.run(go())
