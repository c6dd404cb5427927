"""When records were written that nobody was given yet."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition
from faust.types import TP

from openanomaly.broker.lone_consumer import lone_consumer
from openanomaly.errors import BusUnavailableError

if TYPE_CHECKING:
    from openanomaly.broker.embedded.broker import Broker
    from openanomaly.broker.faust_app import App

_WAIT_MS = 500
_TIMEOUT_S = 10.0
_FETCH_BYTES = 1
"""The broker gives one batch all the same, and no more: records are large, and one of each is wanted."""


async def written_s(app: "App", positions: Mapping[TP, int]) -> dict[TP, float]:
    """When the first record from each position on was written (Unix time), where there is one.

    It reads a batch of each partition: for once, not for every look.

    Raises:
        BusUnavailableError: Kafka does not answer, or has no record there.
        BrokerError: the embedded broker cannot be read.
    """
    if app.config.is_embedded:
        broker: Broker = cast("Any", app.producer_transport).broker
        found = await broker.fetch({(tp.topic, tp.partition): at for tp, at in positions.items()}, 1, 1)
        return {TP(*tp): records[0].timestamp_ms / 1000 for tp, records in found.items() if records}
    wanted = {TopicPartition(tp.topic, tp.partition): at for tp, at in positions.items()}
    times: dict[TP, float] = {}
    try:
        async with (
            asyncio.timeout(_TIMEOUT_S),
            lone_consumer(app, list(wanted), _TIMEOUT_S, fetch_bytes=_FETCH_BYTES) as consumer,
        ):
            for tp, at in wanted.items():
                consumer.seek(tp, at)
            while len(times) < len(wanted):
                left = [tp for tp in wanted if TP(tp.topic, tp.partition) not in times]
                for tp, records in (await consumer.getmany(*left, timeout_ms=_WAIT_MS)).items():
                    times[TP(tp.topic, tp.partition)] = records[0].timestamp / 1000
                    consumer.pause(tp)
    except (KafkaError, TimeoutError) as exc:
        raise BusUnavailableError(f"cannot read what is unread: {exc!r}") from exc
    return times
