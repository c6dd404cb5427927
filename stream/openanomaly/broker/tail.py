"""A topic with one partition, read beside all groups: its end, or any part of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from openanomaly.broker.lone_consumer import lone_consumer
from openanomaly.errors import BusUnavailableError

if TYPE_CHECKING:
    from openanomaly.broker.embedded.broker import Broker
    from openanomaly.broker.faust_app import App

_FETCH_BYTES = 8 << 20
_FETCH_RECORDS = 100
_WAIT_MS = 500
_TIMEOUT_S = 30.0


class Tail(Protocol):
    """What partition 0 of a topic had when it was opened: the offsets from `begin` to before `end`."""

    begin: int
    end: int

    async def since(self, written_ms: int) -> int:
        """An offset before which nothing was written at `written_ms` or later."""

    def read(self, start: int, stop: int) -> AsyncIterator[tuple[int, bytes]]:
        """(offset, value) of the records from `start` to before `stop`, in their order."""


@contextlib.asynccontextmanager
async def tail(app: "App", topic: str) -> AsyncIterator[Tail]:
    """A reader of the topic's partition 0, which may be asked for its parts in any order.

    Raises:
        BusUnavailableError: the broker does not answer, also while it is read.
        BrokerError: the embedded broker has no such topic.
    """
    if app.config.is_embedded:
        broker: Broker = cast("Any", app.producer_transport).broker
        begin = await broker.earliest([(topic, 0)])
        yield _EmbeddedTail(broker, (topic, 0), begin[topic, 0])
        return
    tp = TopicPartition(topic, 0)
    try:
        async with lone_consumer(app, [tp], _TIMEOUT_S) as consumer:
            async with asyncio.timeout(_TIMEOUT_S):
                begin_offset = int((await consumer.beginning_offsets([tp]))[tp])
                end = int((await consumer.end_offsets([tp]))[tp])
            yield _KafkaTail(consumer, tp, begin_offset, end)
    except (KafkaError, TimeoutError) as exc:
        raise BusUnavailableError(f"cannot read {topic}: {exc!r}") from exc


async def read_tail(
    app: "App", topic: str, start: int, since_ms: int, most: int, take: Callable[[bytes], None]
) -> int:
    """Give `take` the records of the topic's partition 0, in their order.

    Args:
        start: offset of the first one.
        since_ms: what is known to have been written before may be left out.
        most: how many at most, counted from the end.

    Returns:
        The offset after the last one.

    Raises:
        BusUnavailableError: the broker does not answer.
    """
    async with tail(app, topic) as found:
        if start < found.end:
            first = max(start, found.end - most, await found.since(since_ms))
            async for _, value in found.read(first, found.end):
                take(value)
        return found.end


class _EmbeddedTail:
    def __init__(self, broker: "Broker", partition: tuple[str, int], begin: int) -> None:
        self._broker = broker
        self._partition = partition
        self.begin, self.end = begin, broker.high_water(partition)

    async def since(self, written_ms: int) -> int:
        return self.begin

    async def read(self, start: int, stop: int) -> AsyncIterator[tuple[int, bytes]]:
        at, stop = max(start, self.begin), min(stop, self.end)
        while at < stop:
            count = min(stop - at, _FETCH_RECORDS)
            found = (await self._broker.fetch({self._partition: at}, count, _FETCH_BYTES))[self._partition]
            for record in found:
                at = record.offset + 1
                if at <= stop:
                    yield record.offset, record.value or b""
            if not found:
                return


class _KafkaTail:
    def __init__(self, consumer: Any, tp: TopicPartition, begin: int, end: int) -> None:
        self._consumer = consumer
        self._tp = tp
        self.begin, self.end = begin, end

    async def since(self, written_ms: int) -> int:
        async with asyncio.timeout(_TIMEOUT_S):
            found = (await self._consumer.offsets_for_times({self._tp: written_ms}))[self._tp]
        return self.end if found is None else int(found.offset)

    async def read(self, start: int, stop: int) -> AsyncIterator[tuple[int, bytes]]:
        start, stop = max(start, self.begin), min(stop, self.end)
        if start >= stop:
            return
        tp, consumer = self._tp, self._consumer
        consumer.seek(tp, start)
        waited = 0
        # The limit is for a broker that says nothing, not for a long topic, nor for who reads it.
        while await self._within(consumer.position(tp)) < stop:
            count = min(stop - start, _FETCH_RECORDS)
            found = await self._within(consumer.getmany(tp, timeout_ms=_WAIT_MS, max_records=count))
            for record in found.get(tp, ()):
                if record.offset < stop:
                    yield record.offset, record.value or b""
            waited = 0 if found else waited + _WAIT_MS
            if waited > _TIMEOUT_S * 1000:
                raise TimeoutError(f"no record within {_TIMEOUT_S:g} s")

    async def _within(self, work: Any) -> Any:
        async with asyncio.timeout(_TIMEOUT_S):
            return await work
