"""Faust transport on the embedded broker: `embedded://PATH?synchronous=NORMAL&disk_limit_bytes=N`.

`embedded://./data` is relative to the working directory, `embedded:///var/lib/openanomaly`
absolute. Groups have one member, so a rebalance is this process taking everything; Faust's own
assignor runs for real, which keeps its tables' bookkeeping as on Kafka.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, cast

from aiokafka.partitioner import DefaultPartitioner
from faust.exceptions import ImproperlyConfigured, ProducerSendError
from faust.transport import base
from faust.transport.consumer import ensure_TP
from faust.types import TP, ConsumerMessage, RecordMetadata
from yarl import URL

from openanomaly.broker.delivery import ReleasedOffsets
from openanomaly.broker.embedded.broker import Broker, Row
from openanomaly.broker.embedded.rows import Stored
from openanomaly.broker.topics import TopicSpec
from openanomaly.errors import BusUnavailableError, ConfigError, OpenAnomalyError

_partition_of_key = DefaultPartitioner()
_FETCH_BYTES = 16 << 20


def folder_of(url: URL | str) -> Path:
    """The folder an `embedded://` URL names."""
    url = URL(url)
    path = (url.host or "") + (url.path if url.path != "/" else "")
    if not path:
        raise ConfigError(
            f"broker.url={url} names no folder: write embedded://./data or embedded:///absolute/path"
        )
    return Path(path)


class Producer(base.Producer):
    """Appends records. Sends return before the commit; their futures are the durability."""

    @property
    def broker(self) -> Broker:
        return cast(Broker, self.transport.broker)

    def append_all(self, topic: str, rows: Sequence[Row]) -> "asyncio.Future[list[int]]":
        """`send` for our own code: no metadata, only the offsets once all the records are durable."""
        return self.broker.append_all(topic, rows)

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: Any,
        *,
        transactional_id: str | None = None,
    ) -> "asyncio.Future[RecordMetadata]":
        """Give a record to the broker; `timestamp` is ignored, records carry the broker's time."""
        partition = self._partition(topic, key, partition)
        appended = self.broker.append(topic, partition, key, value)
        sent: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()

        def done(future: "asyncio.Future[int]") -> None:
            if sent.done():
                return
            if future.cancelled():
                sent.cancel()
            elif (error := future.exception()) is not None:
                sent.set_exception(error)
            else:
                where = (topic, partition, TP(topic, partition), future.result())
                sent.set_result(RecordMetadata(*where, None, None))

        appended.add_done_callback(done)
        sent.add_done_callback(lambda f: appended.cancel() if f.cancelled() else None)
        return sent

    async def send_and_wait(self, *args: Any, **kwargs: Any) -> RecordMetadata:
        return await (await self.send(*args, **kwargs))

    async def flush(self) -> None:
        await self.buffer.flush()
        await self.broker.drain()

    def _partition(self, topic: str, key: bytes | None, partition: int | None) -> int:
        count = self.broker.partitions(topic)
        if not count:
            raise ProducerSendError(f"no topic {topic} in {self.broker.folder}")
        if partition is None:
            everyone = list(range(count))
            return int(_partition_of_key(key, everyone, everyone))
        return partition

    def key_partition(self, topic: str, key: bytes) -> TP:
        return TP(topic, self._partition(topic, key, None))

    async def create_topic(self, topic: str, partitions: int, replication: int, **kwargs: Any) -> None:
        """Topics are made before an app starts: see `Transport.ensure`."""

    def supports_headers(self) -> bool:
        return False


class Consumer(ReleasedOffsets, base.Consumer):
    """Reads the broker for one app; its group is the app's id."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._assigned: set[TP] = set()
        self._position: dict[TP, int] = {}
        self._generation = 0
        super().__init__(*args, **kwargs)

    @property
    def broker(self) -> Broker:
        return cast(Broker, self.transport.broker)

    @property
    def _group(self) -> str:
        return str(self.app.conf.id)

    # -- membership ------------------------------------------------------------------------------

    async def subscribe(self, topics: Iterable[str]) -> None:
        # Not awaited here: on_partitions_assigned waits for what the conductor says only after
        # subscribe() has returned.
        self.add_future(self.rebalance(set(topics)))

    async def rebalance(self, topics: set[str]) -> None:
        """Become the group's only member, anew."""
        app, assignor = self.app, self.app.assignor
        for topic in topics:
            if not self.broker.has(topic):
                await self.app.crash(ConfigError(f"topic {topic} is read but was not declared"))
                return
        app.on_rebalance_start()
        await self.on_partitions_revoked(set(self._assigned))
        cluster = SimpleNamespace(partitions_for_topic=lambda t: set(range(self.broker.partitions(t))))
        mine = assignor.assign(cluster, {"me": assignor.metadata(topics)})["me"]
        assignor.on_assignment(mine)
        self._assigned = {TP(topic, number) for topic, numbers in mine.assignment for number in numbers}
        self._generation += 1
        app.consumer_generation_id = self._generation
        await self.broker.join(self._group, {tp for tp in self._assigned if not self._is_changelog_tp(tp)})
        self._position = await self.begin_offsets(self._assigned)
        await self.on_partitions_assigned(set(self._assigned), self._generation)

    def assignment(self) -> set[TP]:
        return set(self._assigned)

    def topic_partitions(self, topic: str) -> int | None:
        return self.broker.partitions(topic) or None

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        count = self.broker.partitions(topic)
        if not count or partition is not None:
            return partition if count else None
        everyone = list(range(count))
        return int(_partition_of_key(key, everyone, everyone))

    async def create_topic(self, *args: Any, **kwargs: Any) -> None:
        """Topics are made before an app starts: see `Transport.ensure`."""

    # -- positions -------------------------------------------------------------------------------

    async def committed_offsets(self, tps: Iterable[TP]) -> dict[TP, int | None]:
        return {tp: self.broker.committed(self._group, (tp.topic, tp.partition)) for tp in tps}

    async def seek_to_committed(self) -> Mapping[TP, int]:
        begin = await self.begin_offsets(self._assigned)
        self._position.update(begin)
        return begin

    async def _seek(self, partition: TP, offset: int) -> None:
        self._position[ensure_TP(partition)] = offset

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        for tp, offset in partitions.items():
            self._position[tp] = offset
            if offset > 0:
                self._read_offset[tp] = offset
            else:
                self._read_offset.pop(tp, None)

    async def seek_to_beginning(self, *partitions: TP) -> None:
        self._position.update(dict.fromkeys(partitions, 0))

    async def position(self, tp: TP) -> int | None:
        return self._position.get(tp)

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        found = await self.broker.earliest((tp.topic, tp.partition) for tp in partitions)
        return {TP(*partition): offset for partition, offset in found.items()}

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        return {tp: self.highwater(tp) for tp in partitions}

    def highwater(self, tp: TP) -> int:
        return self.broker.high_water((tp.topic, tp.partition))

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        try:
            await self.broker.commit(self._group, {(tp.topic, tp.partition): o for tp, o in offsets.items()})
        except BusUnavailableError as exc:
            self.log.error("offsets were not committed, which costs a repetition at most: %s", exc)
            return False
        return True

    # -- fetch -----------------------------------------------------------------------------------

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Mapping[TP, list[Stored]]:
        generation, position = self._generation, self._position
        tps = self._assigned if active_partitions is None else active_partitions
        behind = {tp: position[tp] for tp in tps if tp in position and position[tp] < self.highwater(tp)}
        if not behind:
            await self.broker.wait_for_news(timeout)
            return {}
        ends = {tp: self.highwater(tp) for tp in behind}
        limits = self.app.conf.broker_max_poll_records or 100, _FETCH_BYTES
        try:
            found = await self.broker.fetch(
                {(tp.topic, tp.partition): o for tp, o in behind.items()}, *limits
            )
        except OpenAnomalyError as exc:
            await self.app.crash(exc)
            return {}
        if generation != self._generation or not self.flow_active:
            return {}
        out = {}
        for tp, start in behind.items():
            # Else a seek moved it while we were reading, or nobody wants it any more.
            if self._position.get(tp) == start and tp not in self._paused_partitions:
                records = found[tp.topic, tp.partition]
                self._position[tp] = records[-1].offset + 1 if records else ends[tp]
                if records:
                    out[tp] = records
        return out

    def _to_message(self, tp: TP, record: Stored) -> ConsumerMessage:
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            record.offset,
            record.timestamp_ms / 1000.0,
            1,  # the log's time, not the producer's
            [],
            record.key,
            record.value,
            None,
            len(record.key or b""),
            len(record.value or b""),
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)


class Transport(base.Transport):
    """Opens the folder when first used; `close` lets it go."""

    Consumer: ClassVar[Any] = Consumer
    Producer: ClassVar[Any] = Producer
    default_port = 0
    driver_version = "embedded-sqlite"

    _broker: Broker | None = None

    @property
    def broker(self) -> Broker:
        if self._broker is None:
            self._broker = self._open()
        return self._broker

    def _open(self) -> Broker:
        if self.app.in_transaction:
            raise ImproperlyConfigured("the embedded broker has no transactions: use at_least_once")
        query = self.url[0].query
        synchronous = query.get("synchronous", "FULL")
        if synchronous not in ("FULL", "NORMAL"):
            raise ConfigError(f"broker.synchronous is FULL or NORMAL, not {synchronous!r}")
        limit = int(query.get("disk_limit_bytes", 20 << 30))
        return Broker.open(folder_of(self.url[0]), cast(Literal["FULL", "NORMAL"], synchronous), limit)

    async def ensure(self, specs: Sequence[TopicSpec]) -> None:
        """Make the topics exist as specified.

        Raises:
            ConfigError: one exists with another number of partitions.
        """
        for spec in specs:
            await self.broker.create(spec)

    async def close(self) -> None:
        broker, self._broker = self._broker, None
        if broker is not None:
            await broker.release()
