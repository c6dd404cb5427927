"""A second worker holds a copy of what the first one is active for, and goes on from it."""

import asyncio

from integration.broker.buses import PARTITIONS, Bus, numbered, running
from integration.broker.test_recovery import EVERYTHING, Keeper, changes
from waiting import until

WAIT_S = 60


def test_a_standby_copies_what_is_written_and_is_promoted_without_reading_it_again(standby_bus: Bus) -> None:
    bus = standby_bus

    async def go() -> None:
        spec = bus.spec("samples")
        await bus.write(spec, numbered(1))
        one, two = Keeper(bus, spec), Keeper(bus, spec)
        async with running(one.app):
            await until(lambda: one.owner.active == EVERYTHING, WAIT_S)
            for partition in range(PARTITIONS):
                await one.change(partition, 0, 20)
            async with running(two.app):
                await until(
                    lambda: one.owner.active | two.owner.active == EVERYTHING and two.owner.active, WAIT_S
                )
                mine, its = set(one.owner.active), set(two.owner.active)
                assert mine
                assert not mine & its
                # The one that was active for all has made its copies of the other's partitions anew.
                await until(lambda: all(len(one.owner.changes[p]) == 20 for p in its), WAIT_S)
                await until(lambda: all(len(two.owner.changes[p]) == 20 for p in EVERYTHING), WAIT_S)
                for partition in mine:
                    await one.change(partition, 20, 30)
                for partition in its:
                    await two.change(partition, 20, 30)
                await until(lambda: all(len(one.owner.changes[p]) == 30 for p in its), WAIT_S)
                await until(lambda: all(len(two.owner.changes[p]) == 30 for p in mine), WAIT_S)
                before = one.fetched
            await until(lambda: one.owner.active == EVERYTHING, WAIT_S)
            assert one.fetched == before, "a promotion reads nothing again"
            await one.change(min(its), 30, 35)
        assert all(one.owner.changes[p] == changes(0, 30) for p in its)

    asyncio.run(go())
