"""A process that stood still for longer than its session: others went on, it may not write behind them."""

import asyncio
import time

import pytest

from integration.broker.buses import PARTITIONS, Bus, numbered, running
from integration.broker.test_recovery import EVERYTHING, Keeper
from openanomaly.errors import BusUnavailableError, DeliveryError
from waiting import until

WAIT_S = 60
SILENCE_S = 14  # more than a session of 6 s, and the time in which the other one takes over


def test_who_was_replaced_writes_nothing_any_more_and_ends(kafka_bus: Bus) -> None:
    bus = kafka_bus

    async def go() -> None:
        spec = bus.spec("samples")
        await bus.write(spec, numbered(1))
        one, two = Keeper(bus, spec), Keeper(bus, spec)
        with pytest.raises(DeliveryError, match="gone on without this process"):  # noqa: PT012 (its end)
            async with running(one.app) as ends:
                await until(lambda: one.owner.active == EVERYTHING, WAIT_S)
                for partition in range(PARTITIONS):
                    await one.change(partition, 0, 20)
                async with running(two.app):
                    await until(
                        lambda: one.owner.active | two.owner.active == EVERYTHING and two.owner.active, WAIT_S
                    )
                    mine = min(one.owner.active - two.owner.active)
                    silence = one.app.consumer._thread.thread_loop
                    silence.call_soon_threadsafe(time.sleep, SILENCE_S)
                    await until(lambda: two.owner.active == EVERYTHING, WAIT_S)
                    late = asyncio.create_task(one.change(mine, 20, 25))
                    await two.change(mine, 20, 22)
                    with pytest.raises(BusUnavailableError):
                        await late
                    await asyncio.wait({ends})
                    again = Keeper(bus, spec)
                async with running(again.app):
                    await until(lambda: again.owner.active == EVERYTHING, WAIT_S)
        assert len(again.owner.changes[mine]) == 22

    asyncio.run(go())
