"""An agent that raises, of Faust and of ours: the weaknesses L2, L3 and L5 of test_faust_weaknesses.py."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from integration.broker.buses import Bus, running
from integration.broker.workers import CRASHING, Ours, Plain, PlainBatches, PlainHeldBatches, records
from waiting import until

pytestmark = [
    pytest.mark.usefixtures("tables_that_start_at_once"),
    # What Faust's own classes leave open when they are stopped in haste is no matter of ours.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@dataclass
class Outcome:
    """What became of twenty records, of which an agent failed once at the sixth."""

    first: list[int]
    """Numbers of those that the first process handled to their end."""
    crashed: bool
    committed: int
    """At the end of the first process."""
    second: list[int]
    """Those that the second process handled, which began where the first one had committed."""

    @property
    def lost(self) -> set[int]:
        return set(range(20)) - {*self.first, *self.second}


async def raise_once(bus: Bus, worker_class: Any, **settings: Any) -> Outcome:
    """A process whose agent raises, until it crashes or has gone on; then another one."""
    spec = bus.spec("samples")
    handled: list[list[int]] = []
    failed, last = asyncio.Event(), 20

    async def handle(content: bytes) -> None:
        if int(content) == 5 and not failed.is_set():
            failed.set()
            raise ValueError("once")
        handled[-1].append(int(content))

    async def run_one() -> None:
        nonlocal last
        handled.append([])
        async with running(worker.app) as crash:
            await until(failed.is_set)
            # One more at a time until one is handled: a record may go the way of those before it.
            while not crash.done() and not any(i >= first for i in handled[-1]):
                await bus.write(spec, records(last, last + 1))
                last += 1
                await asyncio.wait({crash}, timeout=0.5)

    await bus.write(spec, records(0, 20))
    crashed, first = False, last
    worker = worker_class(bus, spec, handle, **settings)
    try:
        await run_one()
    except ValueError:
        crashed = True
    committed = (await bus.committed(worker.app.conf.id, spec.name))[0]
    first = last
    worker = worker_class(bus, spec, handle, **settings)
    await run_one()
    return Outcome(handled[0], crashed, committed, handled[1])


def test_l2_plain_faust_loses_the_record_that_an_agent_raised_at(mock_bus: Bus) -> None:
    found = asyncio.run(raise_once(mock_bus, Plain))
    assert not found.crashed
    assert found.lost == {5}
    assert found.committed > 20


def test_l2_plain_faust_loses_it_also_with_a_supervisor_that_crashes(mock_bus: Bus) -> None:
    found = asyncio.run(raise_once(mock_bus, Plain, committed_at_error=6, agent_supervisor=CRASHING))
    assert found.crashed
    assert found.lost == {5}
    assert found.committed == 6


def test_l3_plain_faust_loses_the_batch_of_take_that_an_agent_raised_at(mock_bus: Bus) -> None:
    found = asyncio.run(raise_once(mock_bus, PlainBatches, committed_at_error=20, agent_supervisor=CRASHING))
    assert found.crashed
    assert found.lost == set(range(5, 20))
    assert found.committed == 20


def test_l5_plain_faust_goes_on_without_the_batch_of_noack_take_until_it_restarts(mock_bus: Bus) -> None:
    found = asyncio.run(raise_once(mock_bus, PlainHeldBatches, stream_wait_empty=False))
    assert not found.crashed
    assert not {5, 6, 7, 8, 9} & set(found.first)
    assert found.committed == 5
    assert found.lost == set()


def test_l2_l3_l5_ours_crash_and_handle_every_record_after_the_restart(mock_bus: Bus) -> None:
    found = asyncio.run(raise_once(mock_bus, Ours))
    assert found.crashed
    assert found.first == [0, 1, 2, 3, 4]
    assert found.committed == 5
    assert found.second[:15] == list(range(5, 20))
