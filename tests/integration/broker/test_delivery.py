"""Delivery on the embedded broker, the Kafka protocol and Kafka itself: in order, and by release only."""

import asyncio
import gc
import time
from collections import defaultdict
from dataclasses import replace

import pytest
from faust.types import TP

from integration.broker.buses import PARTITIONS, Bus, Reader, numbered, offsets, running, value
from openanomaly.broker.faust_app import BrokerConfig, declare, expired_records, make_app, publish
from openanomaly.broker.topics import TopicSpec
from openanomaly.errors import BusUnavailableError, ConfigError
from parts.part import free_port
from waiting import until

RECORDS = 30


def test_published_records_arrive_in_order_with_contiguous_offsets(bus: Bus) -> None:
    async def go() -> None:
        spec = bus.spec("samples")
        reader = Reader(bus, spec)
        written = await bus.write(spec, numbered(RECORDS))
        assert written == [i for i in range(RECORDS) for _ in range(PARTITIONS)]
        async with running(reader.app):
            await until(lambda: reader.count == RECORDS * PARTITIONS)
            later = await bus.write(spec, numbered(RECORDS, first=RECORDS))
            assert later == [i for i in range(RECORDS, 2 * RECORDS) for _ in range(PARTITIONS)]
            await until(lambda: reader.count == 2 * RECORDS * PARTITIONS)

        assert reader.read == {p: offsets(0, 2 * RECORDS) for p in range(PARTITIONS)}

    asyncio.run(go())


def test_the_next_process_starts_where_records_were_released(bus: Bus) -> None:
    """Also where nothing, one record (Faust issue 606), all but one, or all were released."""

    async def go() -> None:
        spec = bus.spec("samples")
        released = [0, 1, RECORDS - 1, RECORDS]
        await bus.write(spec, numbered(RECORDS))
        first = Reader(bus, spec)
        async with running(first.app):
            await until(lambda: first.count == RECORDS * PARTITIONS)
            for partition, count in enumerate(released):
                # Finished out of order, as batches are; and one behind a hole of one, which must not count.
                first.done(partition, *reversed(range(count)))
                if count + 1 < RECORDS:
                    first.done(partition, count + 1)
        assert await bus.committed(first.app.conf.id, spec.name) == released

        second = Reader(bus, spec)
        async with running(second.app):
            await until(lambda: second.count >= RECORDS * PARTITIONS - sum(released))
            await bus.write(spec, numbered(1, first=RECORDS))
            await until(lambda: all(rs and rs[-1][0] == RECORDS for rs in map(second.read.get, range(4))))
        assert second.read == {p: offsets(n, RECORDS + 1) for p, n in enumerate(released)}
        assert await bus.committed(first.app.conf.id, spec.name) == released

    asyncio.run(go())


def test_who_waits_for_a_commit_goes_on_once_the_broker_has_it(bus: Bus) -> None:
    async def go() -> None:
        spec = bus.spec("samples")
        await bus.write(spec, numbered(RECORDS))
        reader = Reader(bus, spec)
        async with running(reader.app):
            await until(lambda: reader.count == RECORDS * PARTITIONS)
            consumer = reader.app.consumer
            for partition, through in ((0, 7), (2, RECORDS)):
                reader.ledger.release(partition, through)
                await consumer.committed_through({TP(spec.name, partition): through})
                assert (await bus.committed(reader.app.conf.id, spec.name))[partition] == through
            # Nobody released these: they are not to be waited for.
            await consumer.committed_through({TP(spec.name, 1): 5})

    asyncio.run(go())


def test_an_agent_that_raises_ends_the_process_and_releases_nothing(bus: Bus) -> None:
    async def go() -> None:
        spec = bus.spec("samples")
        await bus.write(spec, numbered(10))
        first = Reader(bus, spec, fail_at=value(5))
        with pytest.raises(ValueError, match="too much"):
            async with running(first.app) as crash:
                await asyncio.wait_for(crash, 20)
        assert await bus.committed(first.app.conf.id, spec.name) == [0] * PARTITIONS

        second = Reader(bus, spec)
        async with running(second.app):
            await until(lambda: second.count == 10 * PARTITIONS)
        assert second.read == {p: offsets(0, 10) for p in range(PARTITIONS)}

    asyncio.run(go())


def test_a_graceful_stop_does_not_wait_for_held_records(bus: Bus) -> None:
    """More of them than a stream buffers, so that the fetcher waits for room."""

    async def go() -> None:
        spec = bus.spec("samples")
        reader = Reader(bus, spec, hold_at=3)
        await bus.write(spec, numbered(200))
        async with running(reader.app):
            await until(lambda: reader.count == 3)
            stopping = time.monotonic()
        assert time.monotonic() - stopping < 5
        assert await bus.committed(reader.app.conf.id, spec.name) == [0] * PARTITIONS

    asyncio.run(go())


def test_records_that_retention_took_are_counted_and_the_rest_is_read(durable_bus: Bus) -> None:
    bus = durable_bus

    async def go() -> None:
        spec = bus.spec("samples", drop_consumed=False)
        await bus.write(spec, numbered(20))
        first = Reader(bus, spec)
        async with running(first.app):
            await until(lambda: first.count == 20 * PARTITIONS)
            for partition in range(PARTITIONS):
                first.done(partition, *range(5))
        await bus.delete_before(spec.name, {0: 5, 1: 6, 2: 20})

        second = Reader(bus, spec)
        async with running(second.app):
            await until(lambda: second.count == 15 + 14 + 15)
            await bus.write(spec, [(2, None, value(20))])
            await until(lambda: second.read[2])
            expired = {tp.partition: n for tp, n in second.app.consumer.expired.items()}
            told = expired_records(second.app)
        assert expired == {1: 1, 2: 15}
        assert told == {spec.name: 16}
        assert second.read == {0: offsets(5, 20), 1: offsets(6, 20), 2: offsets(20, 21), 3: offsets(5, 20)}

    asyncio.run(go())


def test_a_rebalance_repeats_what_was_not_released_and_nothing_else(bus: Bus) -> None:
    async def go() -> None:
        spec = bus.spec("samples")
        await bus.write(spec, numbered(20))
        reader = Reader(bus, spec)
        async with running(reader.app):
            await until(lambda: reader.count == 20 * PARTITIONS)
            for partition in range(PARTITIONS):
                reader.done(partition, *range(10 + partition))
            await reader.app.consumer.commit()
            before, reader.read = reader.read, defaultdict(list)
            generation = reader.app.consumer_generation_id
            bus.rebalance(reader.app)
            await until(lambda: reader.app.consumer_generation_id != generation)
            await until(lambda: reader.count >= 20 * PARTITIONS - (10 + 11 + 12 + 13))
            await bus.write(spec, numbered(1, first=20))
            await until(
                lambda: all(reader.read[p] and reader.read[p][-1][0] == 20 for p in range(PARTITIONS))
            )
        assert before == {p: offsets(0, 20) for p in range(PARTITIONS)}
        assert reader.read == {p: offsets(10 + p, 21) for p in range(PARTITIONS)}

    asyncio.run(go())


def test_a_partition_paused_while_a_fetch_waits_loses_no_record(bus: Bus) -> None:
    """As at the end of a recovery. aiokafka takes an empty set of partitions for all of them."""

    async def go() -> None:
        spec = bus.spec("samples")
        reader = Reader(bus, spec)
        async with running(reader.app):
            consumer = reader.app.consumer
            await publish(reader.app, spec.name, numbered(1))
            await until(lambda: reader.count == PARTITIONS)
            for first in (1, 2, 3):
                await asyncio.sleep(0.1)  # the next fetch waits by now
                consumer.pause_partitions(consumer.assignment())
                await publish(reader.app, spec.name, numbered(1, first))
                await asyncio.sleep(0.5)
                assert reader.count == first * PARTITIONS
                consumer.resume_partitions(consumer.assignment())
                await until(lambda first=first: reader.count == (first + 1) * PARTITIONS)
        assert reader.read == {p: offsets(0, 4) for p in range(PARTITIONS)}

    asyncio.run(go())


def test_an_app_that_only_produces_leaves_no_event_loop_behind(mock_bus: Bus) -> None:
    """Faust makes a consumer for it too, which is never started; left open, it is a ResourceWarning."""
    asyncio.run(mock_bus.write(mock_bus.spec("samples"), numbered(1)))
    gc.collect()


def test_a_topic_with_other_partitions_is_refused(bus: Bus) -> None:
    async def go() -> None:
        spec = bus.spec("samples")
        await bus.write(spec, [])
        app = make_app("ingest", bus.config)
        declare(app, replace(spec, partitions=2))
        with pytest.raises(ConfigError, match=rf"{spec.name}.* 4 partitions.* 2\b"):
            async with running(app):
                pass
        await app.close_transports()

    asyncio.run(go())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"retention_s": 6 * 3600.0}, {"cleanup.policy": "delete", "retention.ms": "21600000"}),
        ({"retention_s": None}, {"cleanup.policy": "delete", "retention.ms": "-1"}),
        ({"retention_s": None, "compact": True}, {"cleanup.policy": "compact"}),
    ],
)
def test_kafka_has_topics_as_specified(
    kafka_bus: Bus, changes: dict[str, object], expected: dict[str, str]
) -> None:
    async def go() -> None:
        spec = replace(kafka_bus.spec("made"), partitions=7, **changes)
        for _ in range(2):  # the second time it is verified
            await ensure(kafka_bus, spec)
        assert kafka_bus.described(spec.name) == {**expected, "partitions": 7, "max.message.bytes": "1048588"}

    asyncio.run(go())


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        ({"cleanup.policy": "compact"}, {}, r"cleanup\.policy=compact and must have delete"),
        ({}, {"retention_s": None, "compact": True}, r"cleanup\.policy=delete and must have compact"),
        ({"max.message.bytes": "5000"}, {}, r"max\.message\.bytes=5000, .* 1000000 bytes"),
    ],
)
def test_a_kafka_topic_that_would_lose_records_is_refused(
    kafka_bus: Bus, config: dict[str, str], changes: dict[str, object], message: str
) -> None:
    spec = replace(kafka_bus.spec("theirs"), **changes)
    kafka_bus.create(spec.name, config)

    with pytest.raises(ConfigError, match=f"{spec.name}.*{message}"):
        asyncio.run(ensure(kafka_bus, spec))


def test_a_kafka_topic_keeps_the_retention_its_owner_gave_it(
    kafka_bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    spec = kafka_bus.spec("theirs")
    kafka_bus.create(spec.name, {"retention.ms": "77000"})

    asyncio.run(ensure(kafka_bus, spec))

    assert kafka_bus.described(spec.name)["retention.ms"] == "77000"
    assert "retention.ms=77000, the settings say 3600000" in caplog.text


def test_a_replication_that_kafka_cannot_give_is_refused(kafka_bus: Bus) -> None:
    with pytest.raises(ConfigError, match=r"broker\.replication=3"):
        asyncio.run(ensure(kafka_bus, kafka_bus.spec("made"), replication=3))


def test_a_kafka_that_is_not_there_is_said_with_its_address() -> None:
    address = f"127.0.0.1:{free_port()}"
    bus = Bus("kafka", BrokerConfig(f"kafka://{address}"))
    with pytest.raises(BusUnavailableError, match=f"cannot reach Kafka.*{address}"):
        asyncio.run(ensure(bus, bus.spec("made")))


async def ensure(bus: Bus, spec: TopicSpec, replication: int = 1) -> None:
    app = make_app("ingest", replace(bus.config, replication=replication))
    declare(app, spec)
    try:
        await app.ensure_topics()
    finally:
        await app.close_transports()
