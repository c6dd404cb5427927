"""A broker on which nobody runs, as a tool sees it: all records, all offsets, no group to join."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, Self, TypeVar, cast

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupIdNotFound,
    GroupLoadInProgressError,
    KafkaError,
    NotCoordinatorForGroupError,
    for_code,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth, server_list

from openanomaly.broker.embedded.broker import Broker
from openanomaly.broker.embedded.rows import Stored
from openanomaly.broker.embedded.transport import folder_of
from openanomaly.broker.faust_app import BrokerConfig, Row, make_app, publish
from openanomaly.broker.kafka_topics import ensure_topics
from openanomaly.broker.lone_consumer import lone_consumer
from openanomaly.broker.topics import TopicSpec
from openanomaly.errors import BusUnavailableError, ConfigError

Bounds = tuple[int, int]
"""Offset of the first record there is, and the one behind the last."""
Absent = Literal["refused", "made", "empty"]
"""What an embedded broker is that is not there."""

T = TypeVar("T")

_NOT_YET = (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError)
_FETCH_BYTES = 8 << 20
_FETCH_RECORDS = 100
_WAIT_MS = 500
_TIMEOUT_S = 30.0


class Log(ABC):
    """Topics of one broker. Use as a context."""

    def __init__(self, config: BrokerConfig) -> None:
        self.config = config

    def __str__(self) -> str:
        return self.config.url

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    @abstractmethod
    async def open(self) -> None:
        """Raises:
        ConfigError, BrokerError: it is in use, damaged, or refuses who we are.
        BusUnavailableError: it cannot be reached.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go of it."""

    @abstractmethod
    async def members(self, group: str) -> int:
        """How many consumers a group has now."""

    @abstractmethod
    async def partitions(self, topic: str) -> int:
        """How many partitions the topic has, 0 if there is no such topic."""

    @abstractmethod
    async def bounds(self, topic: str) -> list[Bounds]:
        """Of each partition of a topic; empty if there is no such topic."""

    @abstractmethod
    async def committed(self, group: str, topic: str) -> list[int | None]:
        """Of each partition of a topic, what a group has committed."""

    @abstractmethod
    def read(self, topic: str, partition: int, start: int, end: int) -> AsyncGenerator[Stored, None]:
        """The records with `start <= offset < end`, in their order."""

    @abstractmethod
    async def create(self, specs: Sequence[TopicSpec]) -> None:
        """Make topics exist, or verify them."""

    @abstractmethod
    async def write(self, topic: str, rows: Sequence[Row]) -> list[int]:
        """Append records; their offsets once all are durable."""

    @abstractmethod
    async def commit(self, group: str, offsets: Mapping[tuple[str, int], int]) -> None:
        """Note how far a group is that has no members."""


def open_log(config: BrokerConfig, absent: Absent = "refused") -> Log:
    """The broker at `config.url`, to be opened; an embedded one that is not there is `absent`.

    Raises:
        ConfigError: an address or a certificate cannot be used.
    """
    return EmbeddedLog(config, absent) if config.is_embedded else KafkaLog(config)


class EmbeddedLog(Log):
    """The folder of an embedded broker. Nothing in it is deleted."""

    def __init__(self, config: BrokerConfig, absent: Absent) -> None:
        super().__init__(config)
        self._folder = folder_of(config.url)
        self._absent = absent
        self._broker: Broker | None = None

    @property
    def broker(self) -> Broker:
        assert self._broker is not None, "open() comes first, and finds one"
        return self._broker

    async def open(self) -> None:
        if self._absent != "made" and not (self._folder / "log.db").exists():
            if self._absent == "empty":
                return
            raise ConfigError(f"{self}: there is no embedded broker in {self._folder}")
        c = self.config
        self._broker = Broker.open(self._folder, c.synchronous, c.disk_limit_bytes, tidies=False)

    async def close(self) -> None:
        broker, self._broker = self._broker, None
        if broker is not None:
            await broker.release()

    async def members(self, group: str) -> int:
        return 0  # we hold the folder

    async def partitions(self, topic: str) -> int:
        return 0 if self._broker is None else self._broker.partitions(topic)

    async def bounds(self, topic: str) -> list[Bounds]:
        if not (places := [(topic, p) for p in range(await self.partitions(topic))]):
            return []
        first = await self.broker.earliest(places)
        return [(first[place], self.broker.high_water(place)) for place in places]

    async def committed(self, group: str, topic: str) -> list[int | None]:
        return [self.broker.committed(group, (topic, p)) for p in range(self.broker.partitions(topic))]

    async def read(self, topic: str, partition: int, start: int, end: int) -> AsyncGenerator[Stored, None]:
        place = topic, partition
        while start < end:
            found = (await self.broker.fetch({place: start}, _FETCH_RECORDS, _FETCH_BYTES))[place]
            for record in found:
                if record.offset >= end:
                    return
                yield record
            start = found[-1].offset + 1 if found else end

    async def create(self, specs: Sequence[TopicSpec]) -> None:
        for spec in specs:
            await self.broker.create(spec)

    async def write(self, topic: str, rows: Sequence[Row]) -> list[int]:
        return await self.broker.append_all(topic, rows)

    async def commit(self, group: str, offsets: Mapping[tuple[str, int], int]) -> None:
        await self.broker.commit(group, offsets)


class KafkaLog(Log):
    """A Kafka cluster."""

    def __init__(self, config: BrokerConfig) -> None:
        super().__init__(config)
        self._app = make_app("ingest", config)
        transport = cast("Any", self._app.producer_transport)
        self._servers = server_list(transport.url, transport.default_port)
        self._auth = dict(credentials_to_aiokafka_auth(self._app.conf.broker_credentials))
        self._admin: AIOKafkaAdminClient | None = None
        self._has_written = False

    async def open(self) -> None:
        await ensure_topics(self._servers, self._auth, [], 1)  # says why it cannot be reached
        admin = AIOKafkaAdminClient(
            bootstrap_servers=list(self._servers), request_timeout_ms=int(_TIMEOUT_S * 1000), **self._auth
        )
        try:
            await admin.start()
        except KafkaError as exc:
            await admin.close()
            raise BusUnavailableError(f"{self}: {exc!r}") from exc
        self._admin = admin

    async def close(self) -> None:
        admin, self._admin = self._admin, None
        if self._has_written:
            await self._app.producer.stop()
        await self._app.close_transports()
        if admin is not None:
            await admin.close()

    async def members(self, group: str) -> int:
        async def ask() -> int:
            found = 0
            for response in await self._asked.describe_consumer_groups([group]):
                for code, _, _, _, _, members, *_ in response.groups:
                    if code and for_code(code) is not GroupIdNotFound:
                        raise for_code(code)(f"group {group}")
                    found += len(members)
            return found

        return await self._of_group(ask)

    async def _of_group(self, ask: Callable[[], Awaitable[T]]) -> T:
        """An answer of a group's coordinator; where no group has ever been, the first question makes it."""
        async with asyncio.timeout(_TIMEOUT_S):
            while True:
                try:
                    return await ask()
                except _NOT_YET:
                    await asyncio.sleep(0.2)

    @property
    def _asked(self) -> Any:
        assert self._admin is not None, "open() comes first"
        return self._admin

    async def partitions(self, topic: str) -> int:
        # All topics: asking for a name may create it with the broker's defaults.
        described = await self._asked.describe_topics(None)
        return sum(len(t["partitions"]) for t in described if t["topic"] == topic and t["error_code"] == 0)

    async def _places(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, p) for p in range(await self.partitions(topic))]

    async def bounds(self, topic: str) -> list[Bounds]:
        if not (places := await self._places(topic)):
            return []
        async with lone_consumer(self._app, places, _TIMEOUT_S) as consumer:
            first, end = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
        return [(int(first[place]), int(end[place])) for place in places]

    async def committed(self, group: str, topic: str) -> list[int | None]:
        if not (places := await self._places(topic)):
            return []

        async def ask() -> list[int | None]:
            found = await self._asked.list_consumer_group_offsets(group, partitions=places)
            if not found:  # aiokafka does not look at the answer's error
                raise GroupLoadInProgressError(f"group {group}")
            # -1 is how the protocol says "none".
            return [found[place].offset if found[place].offset >= 0 else None for place in places]

        return await self._of_group(ask)

    async def read(self, topic: str, partition: int, start: int, end: int) -> AsyncGenerator[Stored, None]:
        if start >= end:
            return
        place = TopicPartition(topic, partition)
        async with lone_consumer(self._app, [place], _TIMEOUT_S) as consumer:
            consumer.seek(place, start)
            silent_s = 0.0
            while await consumer.position(place) < end:
                found = await consumer.getmany(place, timeout_ms=_WAIT_MS, max_records=_FETCH_RECORDS)
                silent_s = 0.0 if found else silent_s + _WAIT_MS / 1000
                if silent_s > _TIMEOUT_S:
                    raise BusUnavailableError(f"{self} gives no record of {topic}[{partition}]")
                for record in found.get(place, ()):
                    if record.offset >= end:
                        return
                    yield Stored(record.offset, record.timestamp, record.key, record.value)

    async def create(self, specs: Sequence[TopicSpec]) -> None:
        await ensure_topics(self._servers, self._auth, specs, self.config.replication)

    async def write(self, topic: str, rows: Sequence[Row]) -> list[int]:
        self._has_written = True
        return await publish(self._app, topic, rows)

    async def commit(self, group: str, offsets: Mapping[tuple[str, int], int]) -> None:
        noted = {TopicPartition(*place): OffsetAndMetadata(offset, "") for place, offset in offsets.items()}
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._servers, group_id=group, enable_auto_commit=False, **self._auth
        )
        try:
            await consumer.start()
            consumer.assign(list(noted))
            await consumer.commit(noted)
        finally:
            await consumer.stop()
