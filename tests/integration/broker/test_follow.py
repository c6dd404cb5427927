"""A topic is followed beside all groups: by everyone, from a while ago on, through outages and gaps."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from integration.broker.buses import PARTITIONS, Bus, Reader, numbered, running, value
from openanomaly.broker.faust_app import BrokerConfig, declare, make_app
from openanomaly.broker.follow import Follower
from openanomaly.broker.topics import TopicSpec
from openanomaly.errors import MalformedFrameError
from parts import kafka as kafka_part
from parts.kafka import Cluster
from parts.part import free_port
from waiting import until


class Following:
    """A follower on a running app, and what it was given."""

    def __init__(self, bus: Bus, spec: TopicSpec, lead_s: float = 3600.0) -> None:
        self.app = make_app("ingest", bus.config)
        declare(self.app, spec)
        self.got: list[bytes] = []
        self.live = 0
        self.follower = Follower(self.app, spec, self._take, lead_s)

    def _take(self, partition: int, record: bytes, is_live: bool) -> None:
        if record == b"bad":
            raise MalformedFrameError("not a frame")
        if record == b"worse":
            raise ZeroDivisionError
        self.got.append(record)
        self.live += is_live

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with running(self.app), self.following():
            yield

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.follower.run())
        try:
            yield
        finally:
            task.cancel()
            [ended] = await asyncio.gather(task, return_exceptions=True)
            assert isinstance(ended, asyncio.CancelledError)

    async def until(self, count: int) -> None:
        await until(lambda: len(self.got) >= count)
        await until(lambda: self.follower.error is None)


def values(count: int, first: int = 0) -> list[bytes]:
    """What `numbered` writes, over all partitions."""
    return sorted([value(i) for i in range(first, first + count)] * PARTITIONS)


def test_all_partitions_are_followed_from_a_while_ago_on(durable_bus: Bus) -> None:
    bus = durable_bus

    async def go() -> None:
        spec = bus.spec("followed")
        await bus.write(spec, numbered(30))
        one, two = Following(bus, spec), Following(bus, spec)
        async with one.running(), two.running():
            await asyncio.gather(one.until(30 * PARTITIONS), two.until(30 * PARTITIONS))
            await bus.write(spec, numbered(5, first=30))
            await asyncio.gather(one.until(35 * PARTITIONS), two.until(35 * PARTITIONS))
            assert sorted(one.got) == sorted(two.got) == values(35)
            assert one.live == two.live == 5 * PARTITIONS
            await until(lambda: one.follower.unread == 0)
        assert one.follower.counts() == {"records": 35 * PARTITIONS, "rejected": 0, "missed": 0}

    asyncio.run(go())


def test_what_was_written_earlier_than_the_lead_is_left_out(durable_bus: Bus) -> None:
    bus = durable_bus

    async def go() -> None:
        spec = bus.spec("led")
        await bus.write(spec, numbered(10))
        following = Following(bus, spec, lead_s=-3600.0)  # an hour ahead: all of it is too old
        async with following.running():
            await until(lambda: following.follower.error is None)
            await until(lambda: following.follower.unread == 0)
            assert following.got == []

    asyncio.run(go())


def test_records_that_cannot_be_used_are_counted_and_passed_over(durable_bus: Bus) -> None:
    bus = durable_bus

    async def go() -> None:
        spec = bus.spec("poisoned")
        await bus.write(spec, [(0, None, b"bad"), (0, None, b"worse"), *numbered(1)])
        following = Following(bus, spec)
        async with following.running():
            await following.until(PARTITIONS)
            assert sorted(following.got) == values(1)
            assert following.follower.counts() == {"records": PARTITIONS, "rejected": 2, "missed": 0}

    asyncio.run(go())


def test_a_follower_changes_nothing_for_groups(durable_bus: Bus) -> None:
    bus = durable_bus

    async def go() -> None:
        spec = bus.spec("shared")
        await bus.write(spec, numbered(20))
        reader, following = Reader(bus, spec), Following(bus, spec)
        async with running(reader.app), following.running():
            await following.until(20 * PARTITIONS)
            await until(lambda: reader.count == 20 * PARTITIONS)
            for partition in range(PARTITIONS):
                reader.done(partition, *range(7))
        assert await bus.committed(reader.app.conf.id, spec.name) == [7] * PARTITIONS
        assert await bus.committed(following.app.conf.id, spec.name) == [0] * PARTITIONS

    asyncio.run(go())


def test_what_was_deleted_before_it_was_read_is_counted(embedded_bus: Bus) -> None:
    bus = embedded_bus

    async def go() -> None:
        spec = bus.spec("short-lived")
        await bus.write(spec, numbered(3))
        following = Following(bus, spec)
        async with running(following.app):
            async with following.following():
                await following.until(3 * PARTITIONS)
            # It is away while records come, are read by every group, and are deleted.
            await bus.write(spec, numbered(10, first=3))
            await bus.delete_before(spec.name, dict.fromkeys(range(PARTITIONS), 9))
            async with following.following():
                await following.until(7 * PARTITIONS)
                assert following.follower.missed == 6 * PARTITIONS
        assert sorted(following.got) == sorted(values(3) + values(4, first=9))

    asyncio.run(go())


def test_an_outage_of_kafka_is_told_and_outlasted(tmp_path: Path) -> None:
    with kafka_part.cluster(tmp_path) as cluster:
        asyncio.run(outlast(cluster))


async def outlast(cluster: Cluster) -> None:
    config = BrokerConfig(cluster.url, partitions=PARTITIONS, topic_prefix="t")
    bus = Bus("kafka", config, cluster)
    spec = bus.spec("outage")
    await bus.write(spec, numbered(5))
    following = Following(bus, spec)
    async with running(following.app) as crash, following.following():
        await following.until(5 * PARTITIONS)
        await asyncio.to_thread(cluster.kill, 1)
        await until(lambda: following.follower.error is not None, 60)
        told_s = following.follower.since_s
        await asyncio.to_thread(cluster.start, 1)
        await until(lambda: following.follower.error is None, 60)
        assert following.follower.since_s > told_s
        await bus.write(spec, numbered(5, first=5))
        await following.until(10 * PARTITIONS)
        assert not crash.done()
    assert sorted(following.got) == values(10)


def test_a_broker_that_was_never_there_is_waited_for() -> None:
    async def go() -> None:
        app = make_app("ingest", BrokerConfig(f"kafka://127.0.0.1:{free_port()}"))
        follower = Follower(app, TopicSpec("t", 1, 60), lambda *_: None, 1)
        task = asyncio.create_task(follower.run())
        await until(lambda: follower.error is not None and "Connection" in follower.error)
        assert follower.gauges()["is_connected"] == 0
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await app.close_transports()

    asyncio.run(go())
