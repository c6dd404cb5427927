"""The end of a topic with one partition, read beside all groups."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

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
    if app.config.is_embedded:
        broker = cast("Any", app.producer_transport).broker
        return await _read_embedded(broker, topic, start, most, take)
    try:
        return await _read_kafka(app, topic, start, since_ms, most, take)
    except (KafkaError, TimeoutError) as exc:
        raise BusUnavailableError(f"cannot read {topic}: {exc!r}") from exc


async def _read_embedded(
    broker: "Broker", topic: str, start: int, most: int, take: Callable[[bytes], None]
) -> int:
    partition = topic, 0
    end = broker.high_water(partition)
    at = max(start, end - most)
    while at < end:
        found = (await broker.fetch({partition: at}, _FETCH_RECORDS, _FETCH_BYTES))[partition]
        for record in found:
            take(record.value or b"")
        at = found[-1].offset + 1 if found else end
    return end


async def _read_kafka(
    app: "App", topic: str, start: int, since_ms: int, most: int, take: Callable[[bytes], None]
) -> int:
    tp = TopicPartition(topic, 0)
    async with lone_consumer(app, [tp], _TIMEOUT_S) as consumer:
        async with asyncio.timeout(_TIMEOUT_S):
            end = int((await consumer.end_offsets([tp]))[tp])
            if start >= end:
                return end
            since = (await consumer.offsets_for_times({tp: since_ms}))[tp]
        consumer.seek(tp, max(start, end - most, end if since is None else since.offset))
        async with asyncio.timeout(_TIMEOUT_S) as limit:
            while await consumer.position(tp) < end:
                found = await consumer.getmany(tp, timeout_ms=_WAIT_MS, max_records=_FETCH_RECORDS)
                for record in found.get(tp, ()):
                    take(record.value or b"")
                if found:  # the limit is for a broker that says nothing, not for a long topic
                    limit.reschedule(asyncio.get_running_loop().time() + _TIMEOUT_S)
        return end
