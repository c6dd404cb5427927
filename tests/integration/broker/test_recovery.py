"""Recovery of tables on the embedded broker, the Kafka protocol and Kafka: whole, once, and it ends."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from integration.broker.buses import PARTITIONS, Bus, Reader, numbered, offsets, running
from openanomaly.broker.ring_store import changelog_table, send_changelog
from openanomaly.broker.topics import TopicSpec
from waiting import until

Change = tuple[int, bytes | None, bytes | None]
EVERYTHING = set(range(PARTITIONS))


class Owner:
    """Remembers what the store of a table tells it."""

    def __init__(self) -> None:
        self.changes: dict[int, list[Change]] = defaultdict(list)
        self.dropped: list[int] = []
        self.told: list[str] = []
        self.active: set[int] = set()

    @property
    def count(self) -> int:
        return sum(map(len, self.changes.values()))

    def apply(self, table: str, partition: int, offset: int, key: bytes | None, value: bytes | None) -> None:
        self.changes[partition].append((offset, key, value))

    def drop(self, table: str, partition: int) -> None:
        self.dropped.append(partition)

    def revoked(self, table: str) -> None:
        self.told.append("revoked")

    def recovered(self, table: str, active: set[int], standby: set[int]) -> None:
        self.told.append("recovered")
        self.active = active


class Keeper(Reader):
    """A process with a table, as the window role has it, that also reads a topic."""

    def __init__(self, bus: Bus, spec: TopicSpec, retention_s: float | None = 3600.0) -> None:
        super().__init__(bus, spec)
        self.owner = Owner()
        self.table: Any = changelog_table(self.app, "ring", PARTITIONS, self.owner, retention_s)
        self.changelog: str = self.table.changelog_topic_name
        self.changes_at_first_record: int | None = None
        self.fetched = 0
        self._apply = self.table.data.apply_changelog_batch
        self.table.data.apply_changelog_batch = self._count_and_apply

    def _count_and_apply(self, batch: Iterable[Any], to_key: Any, to_value: Any) -> None:
        records = list(batch)
        self.fetched += len(records)
        self._apply(records, to_key, to_value)

    def on_record(self) -> None:
        if self.changes_at_first_record is None:
            self.changes_at_first_record = self.owner.count

    async def change(self, partition: int, first: int, end: int, size: int = 1) -> None:
        await send_changelog(self.table, partition, [change(i, size)[1:] for i in range(first, end)])


def change(number: int, size: int = 1) -> Any:
    return number, b"key %d" % (number % 7), b"%06d" % number * size


def changes(first: int, end: int, size: int = 1) -> list[Any]:
    return [change(i, size) for i in range(first, end)]


def test_a_changelog_is_there_after_a_restart_before_any_record_is_read(bus: Bus) -> None:
    """The first start has an empty changelog; partition 3 stays so. Batches are longer than buffers."""
    counts = {0: 1, 1: 64, 2: 150}

    async def go() -> None:
        spec = bus.spec("samples")
        await bus.write(spec, numbered(3))
        first = Keeper(bus, spec)
        async with running(first.app):
            await until(lambda: first.count == 3 * PARTITIONS)
            assert first.owner.told == ["revoked", "recovered"]
            assert first.owner.active == EVERYTHING
            for partition, count in counts.items():
                await first.change(partition, 0, count)
        assert first.owner.count == 0

        second = Keeper(bus, spec)
        async with running(second.app):
            await until(lambda: second.count == 3 * PARTITIONS)
            assert second.owner.told == ["revoked", "recovered"]
            assert second.owner.active == EVERYTHING
        assert second.owner.changes == {p: changes(0, n) for p, n in counts.items()}
        assert second.changes_at_first_record == sum(counts.values())
        assert second.read == {p: offsets(0, 3) for p in range(PARTITIONS)}

    asyncio.run(go())


def test_a_changelog_without_its_head_or_without_anything_is_recovered(durable_bus: Bus) -> None:
    bus = durable_bus

    async def go() -> None:
        spec = bus.spec("samples")
        first = Keeper(bus, spec)
        async with running(first.app):
            await until(lambda: first.owner.active)
            for partition in range(3):
                await first.change(partition, 0, 100)
        await bus.delete_before(first.changelog, {0: 1, 1: 70, 2: 100})

        second = Keeper(bus, spec)
        async with running(second.app):
            await until(lambda: second.owner.active)
            await second.change(2, 100, 103)
        assert second.owner.changes == {0: changes(1, 100), 1: changes(70, 100)}

        third = Keeper(bus, spec)
        async with running(third.app):
            await until(lambda: third.owner.active)
        assert third.owner.changes == {0: changes(1, 100), 1: changes(70, 100), 2: changes(100, 103)}

    asyncio.run(go())


def test_the_mock_broker_drops_the_head_of_a_changelog_by_itself(mock_bus: Bus) -> None:
    """It keeps 5 MB of a partition: the Kafka protocol says "out of range" where recovery begins."""
    size = 100_000

    async def go() -> None:
        spec = mock_bus.spec("samples")
        first = Keeper(mock_bus, spec)
        async with running(first.app):
            await until(lambda: first.owner.active)
            for i in range(12):  # one batch each
                await first.change(0, i, i + 1, size)

        second = Keeper(mock_bus, spec)
        async with running(second.app):
            await until(lambda: second.owner.active)
        kept = second.owner.changes[0]
        assert 0 < len(kept) < 12
        assert kept == changes(12 - len(kept), 12, size)

    asyncio.run(go())


def test_a_rebalance_reads_nothing_that_is_in_memory_again(bus: Bus) -> None:
    """Neither what was recovered nor what this process wrote itself, nor an empty partition."""

    async def go() -> None:
        spec = bus.spec("samples")
        first = Keeper(bus, spec)
        async with running(first.app):
            await until(lambda: first.owner.active)
            await first.change(0, 0, 20)
            await first.change(1, 0, 20)
        second = Keeper(bus, spec)
        async with running(second.app):
            await until(lambda: second.owner.active)
            await second.change(1, 20, 30)
            await second.change(2, 0, 10)
            bus.rebalance(second.app)
            await until(lambda: second.owner.told == ["revoked", "recovered"] * 2)
            await bus.write(spec, numbered(3))
            await until(lambda: second.count == 3 * PARTITIONS)
        assert second.owner.changes == {0: changes(0, 20), 1: changes(0, 20)}
        assert second.fetched == 40
        assert second.owner.dropped == []
        assert second.owner.active == EVERYTHING
        assert second.read == {p: offsets(0, 3) for p in range(PARTITIONS)}

    asyncio.run(go())
