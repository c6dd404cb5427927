"""A durable log for the apps of one process: Kafka's ideas, one folder, no server.

All changes go through one writer thread. Appends that wait when a commit ends are committed
together, so one fsync serves every request of the moment (group commit). One reader thread serves
fetches. Offsets are given on the event loop, in the order of `append`.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from openanomaly.broker.embedded.database import DiskFullError
from openanomaly.broker.embedded.folder import hold
from openanomaly.broker.embedded.reserve import Reserve
from openanomaly.broker.embedded.rows import Append, Stored
from openanomaly.broker.embedded.store import Store
from openanomaly.broker.topics import TopicSpec
from openanomaly.errors import BrokerError, BusUnavailableError, OpenAnomalyError

log = logging.getLogger(__name__)

T = TypeVar("T")
Partition = tuple[str, int]

EDGE_SHARE = 0.85
"""Records from outside are refused at this share of the disk limit: what is left lets readers write
results and state, without which nothing could be consumed and no space would come back."""
_BATCH_BYTES = 16 << 20
_TIDY_S = 5.0


Row = tuple[int, bytes | None, bytes | memoryview | None]
"""A record to write: partition, key, value."""


@dataclass(slots=True)
class _Waiting:
    """Records that are written together. `tell` makes the result of the future from their offsets."""

    future: "asyncio.Future[Any]"
    rows: list[Row]
    """With the partition as `Store.tp` gives it."""
    tell: Callable[[list[int]], object]
    timestamp_ms: int
    size: int


class Broker:
    """Topics, records and committed offsets in one folder. Use `Broker.open`, then `release`."""

    _open: ClassVar[dict[Path, "Broker"]] = {}

    def __init__(
        self,
        folder: Path,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        disk_limit_bytes: int = 20 << 30,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self.disk_limit_bytes = disk_limit_bytes
        self.refused = 0
        self._clock = clock
        with contextlib.ExitStack() as opened:
            self._lock = opened.enter_context(hold(folder))
            self._store = Store(folder, synchronous)
            opened.callback(self._store.close)
            self._reserve = Reserve(folder / "reserve")
            self._following = self._store.next_offsets()
            self._committed = self._store.committed()
            self._used_bytes = self._store.used_bytes
            opened.pop_all()  # from here on they are closed by `release`
        self._writer = ThreadPoolExecutor(1, "openanomaly-log-writer")
        self._reader = ThreadPoolExecutor(1, "openanomaly-log-reader")
        self._pending: list[_Waiting] = []
        self._pending_bytes = 0
        self._flusher: asyncio.Task[None] | None = None
        self._tidier: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._users = 0

    # -- life ----------------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        folder: Path,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        disk_limit_bytes: int = 20 << 30,
        clock: Callable[[], float] = time.time,
        *,
        tidies: bool = True,
    ) -> "Broker":
        """The broker of `folder`, shared by all users in this process.

        Without `tidies` nothing is deleted for who only looks.

        Raises:
            BrokerError: another process has it, or its files are damaged.
        """
        folder = folder.absolute()
        broker = cls._open.get(folder)
        if broker is None:
            broker = cls._open[folder] = cls(folder, synchronous, disk_limit_bytes, clock)
        broker._users += 1
        if broker._tidier is None and tidies:
            broker._tidier = asyncio.get_running_loop().create_task(broker._tidy_forever())
        return broker

    async def release(self) -> None:
        """One user less; the last one closes the files after everything pending is written."""
        self._users -= 1
        if self._users:
            return
        self._open.pop(self.folder, None)
        if self._tidier is not None:
            self._tidier.cancel()
            await asyncio.gather(self._tidier, return_exceptions=True)
        await self.drain()
        await self._on_writer(lambda: None)
        self._reader.shutdown(wait=True)
        try:
            await self._on_writer(self._store.close)
        finally:
            self._writer.shutdown(wait=True)
            self._lock.close()

    async def _on_writer(self, work: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, work, *args)

    # -- topics --------------------------------------------------------------------------------

    async def create(self, spec: TopicSpec) -> None:
        """Create the topic or verify it.

        Raises:
            ConfigError: it exists with another number of partitions.
        """
        await self._on_writer(self._store.create, spec)
        for partition in range(spec.partitions):
            self._following.setdefault(self._tp((spec.name, partition)), 0)

    def has(self, topic: str) -> bool:
        return topic in self._store.topics

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has, 0 if there is no such topic."""
        known = self._store.topics.get(topic)
        return 0 if known is None else known[1].partitions

    def _tp(self, partition: Partition) -> int:
        topic, number = partition
        known = self._store.topics.get(topic)
        if known is None or not 0 <= number < known[1].partitions:
            raise BrokerError(f"no partition {number} of topic {topic} in {self.folder}")
        return self._store.tp(known[0], number)

    def high_water(self, partition: Partition) -> int:
        """The offset the next record will take."""
        return self._following[self._tp(partition)]

    # -- produce -------------------------------------------------------------------------------

    def append(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None
    ) -> "asyncio.Future[int]":
        """Give a record to the log; the future is its offset once it is durable.

        The future fails with BusUnavailableError when the disk limit or the disk is full: nothing
        was written, and the same may pass later. Cancelling it before its commit withdraws the record.
        """
        return self._give(topic, [(partition, key, value)], _only)

    def append_all(self, topic: str, rows: Sequence[Row]) -> "asyncio.Future[list[int]]":
        """The same for records that belong together: all of them are written in one transaction, or none."""
        return self._give(topic, rows, list)

    def _give(
        self, topic: str, rows: Sequence[Row], tell: Callable[[list[int]], object]
    ) -> "asyncio.Future[Any]":
        future = asyncio.get_running_loop().create_future()
        placed = [(self._tp((topic, partition)), key, value) for partition, key, value in rows]
        size = sum(len(value or b"") + len(key or b"") for _, key, value in rows) + 64 * len(rows)
        if (refusal := self._refusal(topic, size)) is not None:
            self.refused += len(rows)
            future.set_exception(refusal)
            return future
        self._pending.append(_Waiting(future, placed, tell, int(self._clock() * 1000), size))
        self._pending_bytes += size
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.get_running_loop().create_task(self._flush())
        return future

    def _refusal(self, topic: str, size: int) -> BusUnavailableError | None:
        spec = self._store.topics[topic][1]
        limit = int(self.disk_limit_bytes * (EDGE_SHARE if spec.is_edge else 1.0))
        if spec.is_edge and not self._reserve.is_held:
            return BusUnavailableError(
                f"cannot append to {topic}: the disk of {self.folder} is full;"
                " what is left of it is for readers"
            )
        used = self._used_bytes + self._pending_bytes
        if used + size <= limit:
            return None
        return BusUnavailableError(
            f"cannot append {size} bytes to {topic}: {used} bytes in {self.folder}, limit {limit} "
            f"of broker.disk_limit_bytes={self.disk_limit_bytes}; unread records are never deleted for space"
        )

    async def _flush(self) -> None:
        while self._pending:
            batch = self._take_batch()
            records, following, offsets = self._assign(batch)
            try:
                if records:
                    self._used_bytes = await self._on_writer(self._write, records)
            except OpenAnomalyError as exc:
                self._fail(batch, exc)
                continue
            except Exception as exc:  # every waiter must hear
                self._fail(batch, BrokerError(f"cannot write to {self.folder}: {exc!r}"))
                continue
            self._following.update(following)
            for waiting, mine in zip(batch, offsets, strict=True):
                if not waiting.future.done():
                    waiting.future.set_result(waiting.tell(mine))
            self._wake()

    def _take_batch(self) -> list[_Waiting]:
        """What waits, up to about `_BATCH_BYTES`; records whose waiter gave up are left out."""
        batch: list[_Waiting] = []
        size = taken = 0
        for waiting in self._pending:
            if batch and size >= _BATCH_BYTES:
                break
            taken += 1
            self._pending_bytes -= waiting.size
            if not waiting.future.done():
                batch.append(waiting)
                size += waiting.size
        del self._pending[:taken]
        return batch

    def _assign(self, batch: list[_Waiting]) -> tuple[list[Append], dict[int, int], list[list[int]]]:
        """Records with offsets, the next ones of their partitions, and the offsets of each who waits."""
        following: dict[int, int] = {}
        records: list[Append] = []
        offsets: list[list[int]] = []
        for waiting in batch:
            mine: list[int] = []
            for tp, key, value in waiting.rows:
                offset = following.get(tp)
                if offset is None:
                    offset = self._following[tp]
                following[tp] = offset + 1
                mine.append(offset)
                records.append(Append(tp, offset, waiting.timestamp_ms, key, value))
            offsets.append(mine)
        return records, following, offsets

    def _write(self, records: Sequence[Append]) -> int:
        self._store.write(records)
        return self._store.used_bytes

    def _fail(self, batch: list[_Waiting], exc: OpenAnomalyError) -> None:
        if isinstance(exc, DiskFullError):
            self.refused += sum(len(waiting.rows) for waiting in batch)
            exc = BusUnavailableError(str(exc))
        for waiting in batch:
            if not waiting.future.done():
                waiting.future.set_exception(exc)

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def drain(self) -> None:
        """Wait until nothing is pending."""
        while self._flusher is not None and not self._flusher.done():
            await asyncio.shield(self._flusher)

    # -- consume -------------------------------------------------------------------------------

    async def wait_for_news(self, timeout: float) -> None:
        """Return at the next commit of records, or after `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), timeout)

    async def fetch(
        self, positions: Mapping[Partition, int], max_records: int, max_bytes: int
    ) -> dict[Partition, list[Stored]]:
        """Records from each position on, at most `max_bytes` of all of them and one of each."""
        wanted = {p: (self._tp(p), start, self.high_water(p)) for p, start in positions.items()}

        def read() -> dict[Partition, list[Stored]]:
            share = max(1, max_bytes // max(1, len(wanted)))
            return {p: self._store.read(*where, max_records, share) for p, where in wanted.items()}

        return await asyncio.get_running_loop().run_in_executor(self._reader, read)

    async def earliest(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The first offset each partition still has, its high-water mark when it is empty."""
        tps = {p: self._tp(p) for p in partitions}
        following = {tp: self._following[tp] for tp in tps.values()}
        found = await self._on_writer(self._store.earliest, list(tps.values()), following)
        return {p: found[tp] for p, tp in tps.items()}

    # -- groups --------------------------------------------------------------------------------

    async def join(self, group: str, partitions: Iterable[Partition]) -> None:
        """Make a group known as a reader, so that what it has not read yet is kept for it."""
        known = self._committed.get(group, {})
        fresh = {p for p in partitions if self._tp(p) not in known}
        if fresh:
            await self.commit(group, await self.earliest(fresh))

    async def commit(self, group: str, offsets: Mapping[Partition, int]) -> None:
        """Durably note how far a group is; a lower offset than before changes nothing.

        Raises:
            BusUnavailableError: the disk is full; nothing was noted, and the same may pass later.
        """
        tps = {self._tp(p): offset for p, offset in offsets.items()}
        try:
            await self._on_writer(self._with_reserve, self._store.commit, group, tps)
        except DiskFullError as exc:
            raise BusUnavailableError(str(exc)) from exc
        mine = self._committed.setdefault(group, {})
        for tp, offset in tps.items():
            mine[tp] = max(offset, mine.get(tp, 0))

    def committed(self, group: str, partition: Partition) -> int | None:
        return self._committed.get(group, {}).get(self._tp(partition))

    # -- deletion ------------------------------------------------------------------------------

    async def _tidy_forever(self) -> None:
        while True:
            await asyncio.sleep(_TIDY_S)
            try:
                await self.tidy()
            except DiskFullError:
                pass  # appends say so
            except Exception:
                log.exception("cannot delete old records of %s", self.folder)

    async def tidy(self) -> None:
        """Delete what is past its retention and what every group has committed."""
        for topic, (id_, spec) in list(self._store.topics.items()):
            if spec.compact:
                continue
            for number in range(spec.partitions):
                await self._delete(spec, self._store.tp(id_, number), self.high_water((topic, number)))
        self._used_bytes = await self._on_writer(self._tidy_store)

    def _tidy_store(self) -> int:
        self._with_reserve(self._store.tidy)
        self._reserve.take()
        return self._store.used_bytes

    def _with_reserve(self, work: Callable[..., T], *args: object) -> T:
        """Do what makes room. Where that finds no room itself, it gets what was kept for it."""
        try:
            return work(*args)
        except DiskFullError:
            if not self._reserve.give_up():
                raise
            return work(*args)

    async def _delete(self, spec: TopicSpec, tp: int, end: int) -> None:
        offset = 0
        if spec.drop_consumed:
            offset = min((c[tp] for c in self._committed.values() if tp in c), default=0)
        if spec.retention_s is not None:
            oldest_ms = int((self._clock() - spec.retention_s) * 1000)
            offset = max(offset, await self._on_writer(self._store.first_after, tp, end, oldest_ms))
        if offset:
            following = self._following[tp]
            work = self._with_reserve, self._store.delete_before, tp, min(offset, end), following
            while await self._on_writer(*work):
                pass

    @property
    def used_bytes(self) -> int:
        return self._used_bytes


def _only(offsets: list[int]) -> int:
    return offsets[0]
