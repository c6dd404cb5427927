"""A stop while the broker says nothing."""

import asyncio
import gc
from typing import Any

import pytest

from integration.broker.buses import PARTITIONS, Bus, Reader, numbered
from openanomaly.broker.faust_app import BrokerConfig, declare, make_app, publish
from openanomaly.broker.runner import Runner
from openanomaly.errors import BusUnavailableError
from parts.mock_kafka import mock_kafka
from waiting import until

SILENCE_S = 600
STOP_S = 60
"""Much more than it takes; without limits of ours it would be minutes."""


def connections(app: Any) -> list[Any]:
    """Those of its producer and of its consumer, where it has started one."""
    producer, consumer = app.producer._producer, app._consumer and app.consumer._thread._consumer
    clients = [producer and producer.client, consumer and consumer._client]
    return [connection for client in clients if client for connection in client._conns.values()]


def test_it_waits_for_no_answer_and_leaves_no_connection_open(topic_prefix: str) -> None:
    with mock_kafka() as mock:
        config = BrokerConfig(f"kafka://{mock.address}", PARTITIONS, topic_prefix=topic_prefix)
        bus = Bus("mock", config)

        async def go() -> None:
            spec = bus.spec("samples")
            reader, writer = Reader(bus, spec), make_app("ingest", config)
            declare(writer, spec)
            runner = Runner([reader.app, writer])
            await runner.ensure_topics()
            runner.start()
            await publish(writer, spec.name, numbered(1), timeout_s=30)
            await until(lambda: reader.count, 30)
            mock.delay(SILENCE_S)
            with pytest.raises(BusUnavailableError):
                await publish(writer, spec.name, numbered(1), timeout_s=0.2)
            held = connections(writer) + connections(reader.app)
            assert len(held) >= 3
            assert all(connection.connected() for connection in held)
            async with asyncio.timeout(STOP_S):
                await runner.stop()
            assert not any(connection.connected() for connection in held)

        asyncio.run(go())
    gc.collect()  # what was left open says so here
