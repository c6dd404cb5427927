"""The three brokers that the same apps run on, and an app that reads one topic of them."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from confluent_kafka import Consumer as Client
from confluent_kafka import Producer as TransactionalProducer
from confluent_kafka import TopicPartition
from confluent_kafka.admin import ConfigResource, ConfigSource, NewTopic

from openanomaly.broker.embedded.broker import Broker
from openanomaly.broker.faust_app import App, BrokerConfig, Row, declare, make_app, publish
from openanomaly.broker.ledger import Ledger
from openanomaly.broker.runner import Runner
from openanomaly.broker.topics import TopicSpec
from parts.kafka import Cluster

Kind = Literal["embedded", "mock", "kafka"]

PARTITIONS = 4
"""The mock broker makes every topic with four."""


@dataclass(frozen=True, slots=True)
class Bus:
    """A broker as its test sees it: what it says of Kafka does not come through our driver."""

    kind: Kind
    config: BrokerConfig
    cluster: Cluster | None = None

    def spec(self, name: str, retention_s: float | None = 3600.0, **changes: Any) -> TopicSpec:
        return TopicSpec(f"{self.config.topic_prefix}.{name}", PARTITIONS, retention_s, **changes)

    async def committed(self, group: str, topic: str) -> list[int]:
        """Through which offset a group has committed each partition; 0 where it has not."""
        if self.kind == "embedded":
            async with self._opened() as broker:
                return [broker.committed(group, (topic, p)) or 0 for p in range(PARTITIONS)]

        def ask() -> list[int]:
            servers = self.config.url.removeprefix("kafka://")
            client = Client({"bootstrap.servers": servers, "group.id": group, "log_level": 0})
            found = client.committed([TopicPartition(topic, p) for p in range(PARTITIONS)], timeout=10)
            client.close()
            return [max(0, tp.offset) for tp in found]

        return await asyncio.to_thread(ask)

    async def delete_before(self, topic: str, offsets: Mapping[int, int]) -> None:
        """What retention does, without the wait for it. The mock broker cannot."""
        if self.kind == "embedded":
            async with self._opened() as broker:
                for number, offset in offsets.items():
                    tp = broker._tp((topic, number))
                    while await broker._on_writer(
                        broker._store.delete_before, tp, offset, broker._following[tp]
                    ):
                        pass
            return
        assert self.cluster is not None
        admin = self.cluster.admin()
        deleted = admin.delete_records([TopicPartition(topic, *at) for at in offsets.items()])
        for future in deleted.values():
            await asyncio.to_thread(future.result, 10)

    def rebalance(self, app: App) -> None:
        """What a member that joins or leaves causes."""
        consumer = app.consumer
        if self.kind == "embedded":
            consumer.add_future(consumer.rebalance({tp.topic for tp in consumer.assignment()}))
            return
        coordinator = consumer._thread._ensure_consumer()._coordinator
        consumer._thread.thread_loop.call_soon_threadsafe(coordinator.request_rejoin)

    def create(self, topic: str, config: dict[str, str]) -> None:
        """A topic of somebody else."""
        assert self.cluster is not None
        new = NewTopic(topic, PARTITIONS, 1, config=config)
        admin = self.cluster.admin()
        admin.create_topics([new])[topic].result(10)

    def write_in_transaction(
        self, topic: str, partition: int, records: Sequence[tuple[bytes, bytes | None]]
    ) -> None:
        """Records, and behind them an offset without one: the marker of the transaction."""
        servers = self.config.url.removeprefix("kafka://")
        settings = {"bootstrap.servers": servers, "transactional.id": topic, "log_level": 0}
        producer = TransactionalProducer(settings)
        producer.init_transactions(10)
        producer.begin_transaction()
        for key, content in records:
            producer.produce(topic, key=key, value=content, partition=partition)
        producer.commit_transaction(10)

    def described(self, topic: str) -> dict[str, str | int]:
        """Of a topic: its partitions, and those of our settings that hold for it alone."""
        assert self.cluster is not None
        admin = self.cluster.admin()
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        found = admin.describe_configs([resource])[resource].result(10)
        names = ("cleanup.policy", "retention.ms", "max.message.bytes")
        own: dict[str, str | int] = {
            name: found[name].value
            for name in names
            if found[name].source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value
        }
        return own | {"partitions": len(admin.list_topics(topic, timeout=10).topics[topic].partitions)}

    @contextlib.asynccontextmanager
    async def _opened(self) -> AsyncIterator[Broker]:
        broker = Broker.open(Path(self.config.url.removeprefix("embedded://")))
        try:
            yield broker
        finally:
            await broker.release()

    async def write(self, spec: TopicSpec, records: list[Row]) -> list[int]:
        """Publish as the receiver does: from an app that only produces. Returns the offsets."""
        app = make_app("ingest", self.config)
        declare(app, spec)
        async with running(app):
            return await publish(app, spec.name, records, timeout_s=20)


@contextlib.asynccontextmanager
async def running(*apps: App) -> AsyncIterator["asyncio.Task[None]"]:
    """Apps from their start to their graceful end, as a process runs them.

    Gives the task that fails when one crashes. Offsets that were released are committed at the end.
    """
    runner = Runner(apps)
    await runner.ensure_topics()
    runner.start()
    ended = asyncio.Event()
    watch = asyncio.create_task(runner.wait(ended))
    try:
        yield watch
        await runner.commit()
    finally:
        ended.set()
        crash = (await asyncio.gather(watch, return_exceptions=True))[0]
        await runner.stop()
    if isinstance(crash, BaseException):
        raise crash


class Reader:
    """A process that reads a topic and holds every record until the test says it is done.

    Args:
        fail_at: raise at the record with this value.
        hold_at: read no more after so many.
    """

    def __init__(
        self, bus: Bus, spec: TopicSpec, fail_at: bytes | None = None, hold_at: int | None = None
    ) -> None:
        self.app = make_app("sink", bus.config)
        self.ledger = Ledger(self.app, spec.name)
        self.read: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
        self._fail_at, self._hold_at = fail_at, hold_at
        self.app.agent(declare(self.app, spec), name=f"{spec.name}.reader")(self._read)

    async def _read(self, stream: Any) -> None:
        async for event in stream.noack().events():
            if not self.ledger.receive(event):
                continue
            message = event.message
            if message.value == self._fail_at:
                raise ValueError("this record is too much")
            self.on_record()
            self.read[message.partition].append((message.offset, message.value))
            if self.count == self._hold_at:
                await asyncio.Event().wait()

    def on_record(self) -> None:
        """Called at each record, before it counts as read."""

    @property
    def count(self) -> int:
        return sum(map(len, self.read.values()))

    def done(self, partition: int, *offsets: int) -> None:
        for offset in offsets:
            self.ledger.done(partition, offset)


def numbered(count: int, first: int = 0) -> list[Row]:
    """`count` records for each partition."""
    return [(p, None, value(i)) for i in range(first, first + count) for p in range(PARTITIONS)]


def value(number: int) -> bytes:
    return b"%06d" % number


def offsets(first: int, end: int) -> list[tuple[int, bytes]]:
    """What a reader of `numbered` records reads of a partition."""
    return [(i, value(i)) for i in range(first, end)]
