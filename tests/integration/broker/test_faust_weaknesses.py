"""What Faust (0.15.3) loses, or waits for without end, and how we do in the same scenario.

`plain` are Faust's own app, driver, consumer and recovery, used as its documentation says; `ours` is
what the roles of the product use. A `plain` test that fails means that Faust has changed: then what
we do about the weakness may go.

L1  the end of a recovery clears what was delivered since the seek, and commits it as read
L2  an agent that raises acknowledges its record (L2, L3, L5: test_faust_agents.py)
L3  a body of `take` that raises acknowledges its batch and what is behind it
L4  a hole of one record is committed over
L5  a body of `noack_take` that raises never gets its batch again while the process lives
L6  a stop or a rebalance waits for every record that is not acknowledged
L7  a recovery waits for the last offset of a changelog, also where that holds no record
L8  nobody asks aiokafka's coordinator whether it has died
"""

import asyncio
import contextlib
from contextvars import ContextVar
from typing import Any, Literal

import pytest
from aiokafka.errors import KafkaError
from faust.types import TP

from integration.broker.buses import PARTITIONS, Bus, Reader, numbered, offsets, running
from integration.broker.test_recovery import Keeper
from integration.broker.workers import Ours, Plain, PlainReader, records
from openanomaly.broker.topics import TopicSpec
from parts.mock_kafka import MockKafka
from waiting import until

Side = Literal["plain", "ours"]

PATIENCE_S = 1.5
"""Ours need a second at most for what plain Faust waits for without end."""

NO_WAIT = {"stream_wait_empty": False}

pytestmark = [
    pytest.mark.usefixtures("tables_that_start_at_once"),
    # What Faust's own classes leave open when they are stopped in haste is no matter of ours.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
both = pytest.mark.parametrize("side", ["plain", "ours"])


def reader_of(side: Side, bus: Bus, spec: TopicSpec, **changes: Any) -> Reader | PlainReader:
    # Without its wait for what is held (L6), else no process of it ends here.
    return Reader(bus, spec) if side == "ours" else PlainReader(bus, spec, **NO_WAIT, **changes)


async def commit_through(app: Any, offset: int) -> None:
    """Commits until that is committed: one that is on its way already may have begun before."""
    while max((o or 0 for o in app.consumer._committed_offset.values()), default=0) < offset:
        await app.consumer.commit()


@both
def test_l1_records_delivered_while_a_recovery_ends_are_lost(mock_bus: Bus, side: Side) -> None:
    """They come when the seek is done and its answer is still on its way to the main thread."""
    bus = mock_bus

    async def go() -> None:
        spec, tp = bus.spec("samples"), TP(f"{bus.config.topic_prefix}.samples", 0)
        handled: list[int] = []
        idle, sought = asyncio.Event(), asyncio.Event()
        idle.set()

        async def handle(content: bytes) -> None:
            await idle.wait()
            handled.append(int(content))

        await bus.write(spec, [])
        worker = Ours(bus, spec, handle) if side == "ours" else Plain(bus, spec, handle, has_table=True)
        async with running(worker.app):
            await until(lambda: worker.app.is_up)  # else the first ones may be lost in the same way
            consumer = worker.app.consumer
            await bus.write(spec, records(0, 10))
            await until(lambda: len(handled) >= 10)
            await commit_through(worker.app, 10)
            idle.clear()
            recovery = worker.app.tables.recovery
            name = "seek_wait" if side == "ours" else "seek_to_committed"
            complete, seek = recovery.on_recovery_completed, getattr(consumer, name)
            ends = ContextVar("ends", default=False)

            async def end_recovery(*args: Any) -> None:
                ends.set(True)  # the fetcher seeks too, for what a rebalance interrupted
                await complete(*args)

            async def seek_and_answer_late(*args: Any) -> Any:
                answer = await seek(*args)
                if ends.get():
                    await bus.write(spec, records(10, 30))
                    with contextlib.suppress(TimeoutError):
                        await until(lambda: consumer._read_offset[tp] == 29, 20 if side == "plain" else 1)
                    sought.set()
                return answer

            recovery.on_recovery_completed = end_recovery
            setattr(consumer, name, seek_and_answer_late)
            bus.rebalance(worker.app)
            await until(lambda: sought.is_set() and not worker.app.rebalancing)
            idle.set()
            await until(lambda: len(handled) >= (30 if side == "ours" else 11))
            await bus.write(spec, records(30, 35))
            await until(lambda: handled[-1] == 34)

        lost = [] if side == "ours" else list(range(11, 30))
        assert handled == [i for i in range(35) if i not in lost]
        assert await bus.committed(worker.app.conf.id, spec.name) == [35, 0, 0, 0]

    asyncio.run(go())


@both
def test_l4_a_record_that_is_not_finished_is_committed_over(mock_bus: Bus, side: Side) -> None:
    """The first of those behind the committed offset; all behind it are finished."""
    bus = mock_bus

    async def go() -> None:
        spec = bus.spec("samples")
        await bus.write(spec, records(0, 10))
        first = reader_of(side, bus, spec)
        async with running(first.app):
            await until(lambda: first.count == 10)
            first.done(0, 0, 1, 2, 3, 4)
            await commit_through(first.app, 5)
            first.done(0, 6, 7, 8, 9)
        committed = await bus.committed(first.app.conf.id, spec.name)
        assert committed == [5 if side == "ours" else 10, 0, 0, 0]

        await bus.write(spec, records(10, 11))
        second = reader_of(side, bus, spec)
        async with running(second.app):
            await until(lambda: second.read[0] and second.read[0][-1][0] == 10)
        assert second.read[0] == offsets(5 if side == "ours" else 10, 11)

    asyncio.run(go())


def holder_of(side: Side, bus: Bus, spec: TopicSpec) -> Reader | PlainReader:
    return Reader(bus, spec) if side == "ours" else PlainReader(bus, spec)


@both
def test_l6_a_stop_waits_for_records_that_are_held(mock_bus: Bus, side: Side) -> None:
    bus = mock_bus

    async def go() -> None:
        spec, holds = bus.spec("samples"), asyncio.Event()
        await bus.write(spec, records(0, 3))
        reader = holder_of(side, bus, spec)

        async def run() -> None:
            async with running(reader.app):
                await until(lambda: reader.count == 3)
                holds.set()

        process = asyncio.create_task(run())
        await holds.wait()
        await asyncio.wait({process}, timeout=20 if side == "ours" else PATIENCE_S)
        assert process.done() is (side == "ours")
        reader.done(0, 0, 1, 2)
        await process
        if side == "ours":  # Faust commits what is done by then, unless its group has given it up meanwhile
            assert (await bus.committed(reader.app.conf.id, spec.name))[0] == 0

    asyncio.run(go())


@both
def test_l6_a_rebalance_waits_for_records_that_are_held(mock_bus: Bus, side: Side) -> None:
    """And with it every other worker of the group."""
    bus = mock_bus

    async def go() -> None:
        spec = bus.spec("samples")
        await bus.write(spec, records(0, 3))
        reader = holder_of(side, bus, spec)
        async with running(reader.app):
            await until(lambda: reader.count == 3)
            generation = reader.app.consumer_generation_id
            bus.rebalance(reader.app)
            await until(lambda: reader.app.rebalancing)
            if side == "plain":
                await asyncio.sleep(PATIENCE_S)
                assert reader.app.consumer_generation_id == generation
                reader.done(0, 0, 1, 2)
            await until(lambda: reader.app.consumer_generation_id != generation)
            await bus.write(spec, records(3, 4))
            await until(lambda: reader.read[0][-1][0] == 3)
            reader.done(0, *(offset for offset, _ in reader.read[0][3:]))
        assert reader.read[0][:3] == offsets(0, 3)
        again = reader.read[0][3:]
        # What ours held is not finished, so it came again; how much Faust commits as it goes on is a race.
        assert again == offsets(0, 4) if side == "ours" else again in [offsets(k, 4) for k in range(4)]

    asyncio.run(go())


@both
def test_l7_a_recovery_waits_for_a_record_where_the_changelog_ends_with_none(
    kafka_bus: Bus, side: Side
) -> None:
    """There is the marker of a transaction, or what compaction took."""
    bus = kafka_bus

    async def go() -> None:
        spec = bus.spec("samples")
        await bus.write(spec, numbered(1))
        reader = Keeper(bus, spec) if side == "ours" else reader_of(side, bus, spec, has_table=True)
        changelog = TP(f"{reader.app.conf.id}-ring-changelog", 0)
        bus.create(changelog.topic, {"cleanup.policy": "delete"})
        changes = [(b"key %d" % i, b"%06d" % i) for i in range(3)]
        await asyncio.to_thread(bus.write_in_transaction, changelog.topic, 0, changes)

        async with running(reader.app):
            if side == "plain":
                recovery = reader.app.tables.recovery
                await until(lambda: recovery.active_offsets[changelog] == 2)
                await asyncio.sleep(PATIENCE_S)
                assert await reader.app.consumer.position(changelog) == 4, "nothing more to read"
                assert reader.app.in_recovery
                assert reader.count == 0
                await reader.app.producer.send(changelog.topic, b"key 3", b"000003", 0, None, None)
            await until(lambda: reader.app.is_up)
            assert not reader.app.in_recovery
            # Those that were there may be lost to plain Faust (L1) as soon as it recovers.
            await bus.write(spec, numbered(1, first=1))
            await until(lambda: all(reader.read[p] and reader.read[p][-1][0] == 1 for p in range(PARTITIONS)))
        if isinstance(reader, Keeper):
            assert reader.read == {p: offsets(0, 2) for p in range(PARTITIONS)}
            assert reader.owner.changes == {0: [(i, *change) for i, change in enumerate(changes)]}

    asyncio.run(go())


SYNC_GROUP, INVALID_REQUEST = 14, 42


@both
def test_l8_a_worker_whose_coordinator_died_sits_there(mock_bus: Bus, mock: MockKafka, side: Side) -> None:
    bus = mock_bus

    async def go() -> None:
        spec = bus.spec("samples")
        await bus.write(spec, records(0, 3))
        reader = reader_of(side, bus, spec)
        async with running(reader.app) as crash:
            await until(lambda: reader.count == 3)
            coordinator = reader.app.consumer._thread._consumer._coordinator
            mock.refuse(SYNC_GROUP, INVALID_REQUEST)
            bus.rebalance(reader.app)
            await until(lambda: coordinator._pending_exception is not None or crash.done())
            await bus.write(spec, records(3, 6))
            await asyncio.wait({crash}, timeout=20 if side == "ours" else PATIENCE_S)
            assert crash.done() is (side == "ours")
            assert reader.count == 3
            if side == "plain":
                assert not coordinator._error_consumed_fut.done(), "it waits until somebody asks"

    if side == "plain":
        asyncio.run(go())
    else:
        with pytest.raises(KafkaError, match="InvalidRequestError"):
            asyncio.run(go())
