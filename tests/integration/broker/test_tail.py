"""The end of a topic is read beside all groups; notes of other workers are seen after a rebalance."""

import asyncio
import time
from typing import Any

import pytest

from integration.broker.buses import PARTITIONS, Bus, Reader, numbered, running, value
from openanomaly.broker.dead_letter import DeadLetters
from openanomaly.broker.faust_app import BrokerConfig, declare, make_app
from openanomaly.broker.notes import Origin
from openanomaly.broker.tail import read_tail
from openanomaly.broker.topics import topics
from openanomaly.errors import BusUnavailableError
from parts.part import free_port
from waiting import until

HOUR_MS = 3_600_000


def test_what_is_read_begins_where_it_is_asked_to_and_ends_with_the_topic(durable_bus: Bus) -> None:
    bus = durable_bus

    async def go() -> None:
        spec = bus.spec("letters", drop_consumed=False)
        app = make_app("ingest", bus.config)
        declare(app, spec)

        async def read(start: int, most: int, since_ms: int = 0) -> tuple[int, list[bytes]]:
            found: list[bytes] = []
            end = await read_tail(app, spec.name, start, since_ms, most, found.append)
            return end, found

        def values(first: int, end: int) -> list[bytes]:
            return [value(i) for i in range(first, end)]

        async with running(app):
            assert await read(0, 1000) == (0, [])
        await bus.write(spec, numbered(300))
        now_ms = int(time.time() * 1000)
        async with running(app := make_app("ingest", bus.config)):
            assert await read(0, 1000) == (300, values(0, 300))
            assert await read(0, 1000, now_ms - HOUR_MS) == (300, values(0, 300))
            assert await read(250, 1000) == (300, values(250, 300))
            assert await read(0, 20) == (300, values(280, 300))
            assert await read(300, 1000) == (300, [])
            if bus.kind == "kafka":
                assert await read(0, 1000, now_ms + HOUR_MS) == (300, [])
        await bus.delete_before(spec.name, {0: 120})
        async with running(app := make_app("ingest", bus.config)):
            assert await read(0, 1000) == (300, values(120, 300))
        await bus.delete_before(spec.name, {0: 300})
        async with running(app := make_app("ingest", bus.config)):
            assert await read(0, 1000) == (300, [])

    asyncio.run(go())


def test_a_broker_that_does_not_answer_is_said_so() -> None:
    async def go() -> None:
        app: Any = make_app("ingest", BrokerConfig(f"kafka://127.0.0.1:{free_port()}"))
        with pytest.raises(BusUnavailableError, match="cannot read letters"):
            await read_tail(app, "letters", 0, 0, 10, lambda _: None)
        await app.close_transports()

    asyncio.run(go())


def test_a_worker_that_gets_a_partition_knows_what_crashed_the_one_before(durable_bus: Bus) -> None:
    bus = durable_bus

    async def go() -> None:
        names = topics(bus.config.topic_prefix, PARTITIONS)
        await bus.write(names.scores, numbered(1))
        origin = Origin(names.scores.name, 2, 0, 0)
        reader = Reader(bus, names.scores)
        letters = DeadLetters(reader.app, names)
        other = make_app("ingest", bus.config)
        crashing = DeadLetters(other, names)
        async with running(reader.app, other):
            await until(lambda: reader.count == PARTITIONS)
            await letters.catch_up()
            assert not letters.is_suspect(origin)
            generation = reader.app.consumer_generation_id
            await crashing.note(RuntimeError("a bug of ours"), [(origin, b"x")])
            bus.rebalance(reader.app)
            await until(lambda: reader.app.consumer_generation_id != generation)
            await asyncio.gather(letters.catch_up(), letters.catch_up())
            assert letters.is_suspect(origin)
            assert letters._notes.count(origin) == 1
            assert not letters.is_set_aside(origin)

    asyncio.run(go())
