"""Payloads of large records, in append-only files beside the SQLite log.

SQLite would write such a payload twice (its write-ahead log, then the database) and pay again to
delete it; a file is written once and unlinked (docs/decisions/0010-payload-segments.md).
"""

import contextlib
import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import xxhash

from openanomaly.broker.embedded.folder import sync
from openanomaly.errors import BrokerError

_IOV_MAX = 512


def checksum(payload: bytes | memoryview) -> int:
    """64-bit checksum of a payload as SQLite's signed integer."""
    return int(xxhash.xxh3_64_intdigest(payload)) - (1 << 63)


class Segments:
    """Append-only files, one open per topic. Writing is for one thread, reading for another.

    A file is written by one run of the process only and removed when no record of it lives. Numbers
    only grow, so a number never names two files.
    """

    def __init__(
        self, folder: Path, live: dict[int, int], next_number: int, limit_bytes: int = 64 << 20
    ) -> None:
        """`live`: records alive per segment, as the log says; other files are left-overs."""
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._live = dict(live)
        self._sizes: dict[int, int] = {}
        self._open: dict[int, int] = {}  # topic -> number of the segment it appends to
        self._write_fds: dict[int, int] = {}
        self._read_fds: dict[int, int] = {}
        self._reading = threading.Lock()  # a descriptor must not be closed, and reused, under a read
        if not folder.exists():
            folder.mkdir()
            sync(folder.parent)
        for path in folder.glob("*.seg"):
            number = int(path.stem)
            next_number = max(next_number, number + 1)
            if number in self._live:
                self._sizes[number] = path.stat().st_size
            else:
                path.unlink()
        self._next = next_number

    @property
    def used_bytes(self) -> int:
        return sum(self._sizes.values())

    def size(self, number: int) -> int:
        return self._sizes[number]

    def is_sealed(self, number: int) -> bool:
        """Whether nothing is appended to the segment any more."""
        return number not in self._write_fds

    def path(self, number: int) -> Path:
        return self._folder / f"{number:012d}.seg"

    # -- writer thread ---------------------------------------------------------------------------

    def append(self, topic: int, payloads: Sequence[bytes | memoryview]) -> tuple[int, list[int]]:
        """Write payloads of one topic; gives the segment and each payload's position.

        Raises:
            OSError: nothing of `payloads` is kept.
        """
        number = self._open.get(topic)
        if number is None or self._sizes[number] >= self._limit_bytes:
            number = self._roll(topic)
        start = position = self._sizes[number]
        positions = []
        for payload in payloads:
            positions.append(position)
            position += len(payload)
        fd = self._write_fds[number]
        try:
            _write_all(fd, payloads)
        except OSError:
            os.ftruncate(fd, start)
            os.lseek(fd, start, os.SEEK_SET)
            raise
        self._sizes[number] = position
        self._live[number] = self._live.get(number, 0) + len(payloads)
        return number, positions

    def undo(self, number: int, start: int, records: int) -> None:
        """Take back the last `records` payloads, which began at `start`: their index was not written."""
        fd = self._write_fds[number]
        os.ftruncate(fd, start)
        os.lseek(fd, start, os.SEEK_SET)
        self._sizes[number] = start
        self._live[number] -= records

    def sync(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if (fd := self._write_fds.get(number)) is not None:
                os.fdatasync(fd)

    def _roll(self, topic: int) -> int:
        self.seal(topic)
        number = self._next
        path = self.path(number)
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640)
        self._next += 1  # whatever happens: a number never names two files
        try:
            sync(self._folder)  # the file's name must survive a power loss as its bytes do
        except OSError:
            os.close(fd)
            raise
        self._write_fds[number] = fd
        self._open[topic], self._sizes[number] = number, 0
        self._live.setdefault(number, 0)
        return number

    def seal(self, topic: int) -> None:
        """Append no more to the topic's open segment, so that it can go when its records have."""
        number = self._open.pop(topic, None)
        if number is not None:
            os.close(self._write_fds.pop(number))
            if not self._live.get(number):
                self._remove(number)

    def seal_idle(self) -> None:
        """Seal open segments whose records are all gone: a quiet topic keeps no disk."""
        for topic, number in list(self._open.items()):
            if self._sizes[number] and not self._live.get(number):
                self.seal(topic)

    def forget(self, number: int, records: int) -> None:
        """`records` of the segment were deleted from the log; the last one takes the file along."""
        left = self._live[number] = self._live[number] - records
        if left <= 0 and number not in self._open.values():
            self._remove(number)

    def _remove(self, number: int) -> None:
        self._live.pop(number, None)
        self._sizes.pop(number, None)
        with self._reading:
            if (fd := self._read_fds.pop(number, None)) is not None:
                os.close(fd)
        # What cannot be removed now is a left-over at the next start. Its records are gone from the
        # index by now: the caller must not take back what it wrote in the same transaction.
        with contextlib.suppress(OSError):
            self.path(number).unlink()

    # -- reader thread ---------------------------------------------------------------------------

    def read(self, number: int, position: int, length: int, expected: int) -> bytes:
        """One payload.

        Raises:
            FileNotFoundError: the segment is gone; its records were deleted meanwhile.
            BrokerError: the bytes are not what was written.
        """
        with self._reading:
            fd = self._read_fds.get(number)
            if fd is None:
                fd = self._read_fds[number] = os.open(self.path(number), os.O_RDONLY)
            payload = os.pread(fd, length, position)
        if len(payload) != length or checksum(payload) != expected:
            raise BrokerError(
                f"{self.path(number)} is damaged at byte {position}: the {length} bytes there are not what "
                "was written. Restore the folder from a copy, or move it away to start empty."
            )
        return payload

    def close(self) -> None:
        for fd in (*self._write_fds.values(), *self._read_fds.values()):
            os.close(fd)
        self._write_fds.clear()
        self._read_fds.clear()
        self._open.clear()


def _write_all(fd: int, payloads: Sequence[bytes | memoryview]) -> None:
    """Write every byte or raise. `writev` may stop early, when a disk fills up for one."""
    for first in range(0, len(payloads), _IOV_MAX):
        views = [memoryview(payload) for payload in payloads[first : first + _IOV_MAX]]
        while views:
            written = os.writev(fd, views)
            while views and written >= len(views[0]):
                written -= len(views[0])
                views.pop(0)
            if written:
                views[0] = views[0][written:]
