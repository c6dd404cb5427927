"""How old a backlog is, told by a process that has just begun to read it."""

import asyncio
import time

import pytest
from faust.types import TP

from integration.broker.buses import PARTITIONS, Bus, Reader, numbered, running
from openanomaly.broker import written
from openanomaly.broker.watchdog import Watchdog
from openanomaly.broker.written import written_s
from openanomaly.errors import BusUnavailableError
from waiting import until

RECORDS, READ = 30, 10
AWAY_S = 7200.0


def test_after_a_restart_the_oldest_record_is_as_old_as_it_is(bus: Bus) -> None:
    """Not as old as the process."""

    async def go() -> None:
        spec = bus.spec("samples")
        reports: list[tuple[str, str, int, float]] = []
        began_s = time.time()
        await bus.write(spec, numbered(RECORDS))
        wrote_s = time.time()
        first = Reader(bus, spec)
        async with running(first.app):
            await until(lambda: first.count == RECORDS * PARTITIONS)
            for partition in range(PARTITIONS):
                first.done(partition, *range(READ))

        # Two hours later: the clock of the process that comes, not that of the broker.
        second = Reader(bus, spec, hold_at=PARTITIONS)
        dog = Watchdog(
            second.app, lambda *report: reports.append(report), wall_clock=lambda: time.time() + AWAY_S
        )
        async with running(second.app):
            await until(lambda: second.count == PARTITIONS)
            least_s = time.time() - wrote_s + AWAY_S
            assert await dog.look() is None
            most_s = time.time() - began_s + AWAY_S

        ((role, topic, unread, oldest_s),) = reports
        assert (role, topic, unread) == ("sink", spec.name, PARTITIONS * (RECORDS - READ) - PARTITIONS)
        assert least_s - 0.01 <= oldest_s <= most_s + 0.01, "timestamps are whole milliseconds"

    asyncio.run(go())


def test_records_that_nobody_was_given_say_when_they_were_written(bus: Bus) -> None:
    async def go() -> None:
        spec = bus.spec("samples")
        reader = Reader(bus, spec, hold_at=1)
        positions = {TP(spec.name, partition): partition for partition in range(PARTITIONS)}
        async with running(reader.app):
            began_s = time.time()
            await bus.write(spec, numbered(PARTITIONS))
            between_s = time.time()
            await asyncio.sleep(0.1)
            await bus.write(spec, numbered(1))
            found = await written_s(reader.app, positions)
            assert positions.keys() == found.keys()
            assert all(began_s - 0.01 <= at <= between_s + 0.01 for at in found.values())
            later = await written_s(reader.app, dict.fromkeys(positions, PARTITIONS))
            assert all(between_s + 0.05 <= at <= time.time() + 0.01 for at in later.values())

    asyncio.run(go())


def test_a_broker_that_has_nothing_to_read_there_says_so(
    kafka_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(written, "_TIMEOUT_S", 1.5)

    async def go() -> None:
        spec = kafka_bus.spec("samples")
        reader = Reader(kafka_bus, spec)
        await kafka_bus.write(spec, numbered(1))
        async with running(reader.app):
            with pytest.raises(BusUnavailableError, match="cannot read what is unread"):
                await written_s(reader.app, {TP(spec.name, 0): 1})

    asyncio.run(go())
