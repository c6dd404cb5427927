"""How old a backlog is, told by a process that has just begun to read it."""

import asyncio
import time

from integration.broker.buses import PARTITIONS, Bus, Reader, numbered, running
from openanomaly.broker.watchdog import Watchdog
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
        written_s = time.time()
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
            least_s = time.time() - written_s + AWAY_S
            assert await dog.look() is None
            most_s = time.time() - began_s + AWAY_S

        ((role, topic, unread, oldest_s),) = reports
        assert (role, topic, unread) == ("sink", spec.name, PARTITIONS * (RECORDS - READ) - PARTITIONS)
        assert least_s - 0.01 <= oldest_s <= most_s + 0.01, "timestamps are whole milliseconds"

    asyncio.run(go())
