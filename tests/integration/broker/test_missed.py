"""A process that missed a rebalance begins anew with what it had."""

import asyncio

from integration.broker.buses import PARTITIONS, Bus, numbered, running
from integration.broker.test_recovery import EVERYTHING, Keeper, changes
from waiting import until


def test_what_is_held_is_read_again_when_the_group_had_a_generation_without_us(embedded_bus: Bus) -> None:
    bus = embedded_bus

    async def go() -> None:
        spec = bus.spec("samples")
        await bus.write(spec, numbered(1))
        first = Keeper(bus, spec)
        async with running(first.app):
            await until(lambda: first.owner.active == EVERYTHING)
            for partition in range(PARTITIONS):
                await first.change(partition, 0, 20)

        keeper = Keeper(bus, spec)
        async with running(keeper.app):
            await until(lambda: keeper.owner.active == EVERYTHING)
            once = {p: changes(0, 20) for p in range(PARTITIONS)}
            assert keeper.owner.changes == once
            for _ in range(2):
                keeper.owner.told.clear()
                bus.rebalance(keeper.app)
                await until(lambda: "recovered" in keeper.owner.told, 20)
            assert keeper.owner.dropped == []
            assert keeper.owner.changes == once, "nobody else had them: nothing is read again"

            keeper.owner.told.clear()
            keeper.app.consumer._generation += 1
            bus.rebalance(keeper.app)
            await until(lambda: "recovered" in keeper.owner.told, 20)
            assert sorted(keeper.owner.dropped) == sorted(EVERYTHING)
            assert keeper.owner.changes == {p: changes(0, 20) * 2 for p in range(PARTITIONS)}

    asyncio.run(go())
