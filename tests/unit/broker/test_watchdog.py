"""The watchdog: an app that has records to read and reads none is ended, unless something explains it."""

import asyncio
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from openanomaly.broker.embedded.rows import Stored
from openanomaly.broker.watchdog import Watchdog
from openanomaly.errors import BrokerError, DeliveryError

A, B = TP("samples", 0), TP("samples", 1)
STALL_S, IDLE_S = 10.0, 30.0
UNIX_S = 1_700_000_000.0
"""What the wall clock shows when the other one shows 0."""


class Ledger:
    topic = "samples"

    def __init__(self) -> None:
        self.at: dict[TP, int] = {A: 0}
        self.written: dict[TP, float] = {}

    def positions(self) -> dict[TP, int]:
        return dict(self.at)

    def written_s(self) -> dict[TP, float]:
        return dict(self.written)


class App:
    role = "sink"
    should_stop = False

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.ledgers = [self.ledger]
        self.ends: dict[TP, int] = {A: 0}
        self.answer: BaseException | None = None
        self.crashes: list[BaseException] = []
        self.consumer = SimpleNamespace(highwaters=self._highwaters)
        self.config = SimpleNamespace(is_embedded=True)
        self.producer_transport = SimpleNamespace(broker=SimpleNamespace(fetch=self._fetch))
        self.fetches: list[Mapping[tuple[str, int], int]] = []
        self.written: Callable[[int], float | Exception] = lambda offset: UNIX_S
        """When a record was written, as the broker knows."""

    async def _highwaters(self, *tps: TP) -> Mapping[TP, int]:
        if isinstance(self.answer, TimeoutError):
            await asyncio.Event().wait()
        if self.answer is not None:
            raise self.answer
        return {tp: self.ends[tp] for tp in tps}

    async def _fetch(
        self, positions: Mapping[tuple[str, int], int], *limits: int
    ) -> dict[tuple[str, int], list[Stored]]:
        self.fetches.append(positions)
        written = {partition: self.written(at) for partition, at in positions.items()}
        for error in written.values():
            if isinstance(error, Exception):
                raise error
        return {p: [Stored(positions[p], int(s * 1000), None, b"")] for p, s in written.items()}

    async def crash(self, reason: BaseException) -> None:
        self.crashes.append(reason)


class Room:
    def __init__(self, **options: Any) -> None:
        self.now = 1000.0
        self.app = App()
        self.is_held_up = False
        self.reports: list[tuple[str, str, int, float]] = []
        self.dog = Watchdog(
            self.app,  # type: ignore[arg-type]
            lambda *report: self.reports.append(report),
            lambda: self.is_held_up,
            **{
                "stall_s": STALL_S,
                "idle_s": IDLE_S,
                "every_s": 0.0,
                "clock": lambda: self.now,
                "wall_clock": lambda: UNIX_S + self.now,
                **options,
            },
        )

    async def look(self, seconds: float = 1.0) -> str | None:
        self.now += seconds
        return await self.dog.look()


def test_unread_records_and_no_progress_end_the_app() -> None:
    async def go() -> None:
        room = Room()
        room.app.ends[A] = 5
        assert [await room.look() for _ in range(11)] == [None] * 11
        assert await room.look() == "records are unread and none was read for 11 s"

    asyncio.run(go())


def test_progress_of_one_partition_is_progress() -> None:
    async def go() -> None:
        room = Room()
        room.app.ledger.at = {A: 0, B: 0}
        room.app.ends = {A: 100, B: 100}
        for _ in range(10):
            assert await room.look(STALL_S) is None
            room.app.ledger.at[B] += 1

    asyncio.run(go())


def test_nothing_to_read_is_no_stall() -> None:
    async def go() -> None:
        room = Room()
        for _ in range(5):
            assert await room.look(STALL_S * 2) is None
        room.app.ends[A] = 1
        assert await room.look(STALL_S) is None  # it became unread at some time since the last look
        assert await room.look(1) is not None

    asyncio.run(go())


def test_while_reading_is_held_up_nothing_counts_and_after_it_the_time_begins_anew() -> None:
    async def go() -> None:
        room = Room()
        room.app.ends[A] = 5
        room.is_held_up = True
        for _ in range(5):
            assert await room.look(STALL_S * 2) is None
        room.is_held_up = False
        assert await room.look(STALL_S) is None
        assert await room.look(1) is not None

    asyncio.run(go())


def test_no_partitions_end_the_app_in_the_end() -> None:
    async def go() -> None:
        room = Room()
        assert await room.look(IDLE_S * 2) is None
        room.app.ledger.at = {}
        assert await room.look(IDLE_S) is None
        assert await room.look(1) == "no partitions for 30 s"

    asyncio.run(go())


def test_lag_is_told_with_the_age_of_the_oldest_unread_record() -> None:
    async def go() -> None:
        room = Room()
        room.app.ledger.at = {A: 0, B: 0}
        room.app.ends = {A: 3, B: 4}
        await room.look()
        await room.look(5)
        room.app.ledger.at = {A: 2, B: 4}
        await room.look(2)
        room.app.ledger.at = {A: 3, B: 4}
        await room.look()
        room.app.ends[B] = 5
        await room.look()
        assert room.reports == [
            ("sink", "samples", 7, 0.0),
            ("sink", "samples", 7, 5.0),
            ("sink", "samples", 1, 7.0),
            ("sink", "samples", 0, 0.0),
            ("sink", "samples", 1, 0.0),
        ]

    asyncio.run(go())


def test_records_that_come_all_the_time_and_are_read_at_once_are_never_old() -> None:
    async def go() -> None:
        room = Room()
        for _ in range(1000):
            room.app.ends[A] += 10
            await room.look()
            room.app.ledger.at[A] = room.app.ends[A] - 1
        assert max(oldest_s for _, _, _, oldest_s in room.reports) == 1.0
        room.app.ends[A] += 1
        for _ in range(1000):  # and now it reads no more
            room.app.ends[A] += 1
            room.is_held_up = True
            await room.look()
        assert room.reports[-1] == ("sink", "samples", 1002, 1000.0)
        room.app.ledger.at[A] = room.app.ends[A] - 500
        await room.look()
        assert 450 <= room.reports[-1][-1] <= 500

    asyncio.run(go())


def test_a_backlog_from_before_the_start_is_as_old_as_its_records() -> None:
    """However long ago the process began: it may be restarted more often than an alarm takes."""

    async def go() -> None:
        room = Room()
        room.app.ends[A] = 1000
        ages = []
        for position, written in [(0, None), (10, -7200.0), (500, -300.0), (999, 999.0)]:
            room.app.ledger.at[A] = position
            if written is not None:
                room.app.ledger.written[A] = UNIX_S + written
            await room.look()
            ages.append(room.reports[-1][-1])
        # Nothing has come yet; then record 9 says how old 10 is; in the end what was seen says more.
        assert ages == [0.0, 1002.0 + 7200.0, 1003.0 + 300.0, 5.0]

    asyncio.run(go())


def test_where_nothing_comes_the_broker_is_asked_once_how_old_the_next_record_is() -> None:
    """Windows that recover for minutes, a role that cannot read: the backlog waits all the same."""

    async def go() -> None:
        room = Room(stall_s=100.0)
        room.app.ledger.at = {A: 7, B: 3}
        room.app.ends = {A: 10, B: 3}
        room.app.written = lambda offset: UNIX_S - 1000.0 * offset
        for _ in range(60):
            assert await room.look() is None
        assert room.app.fetches == [{A: 7}], "nothing is unread of the other one"
        ages = [oldest_s for _, _, _, oldest_s in room.reports]
        assert ages == [*range(10), *(1001.0 + 7000.0 + second for second in range(10, 60))]

        room.app.ledger.at[A], room.app.ledger.written[A] = 8, UNIX_S + 1000.0
        await room.look()
        assert room.reports[-1][-1] == 61.0
        room.app.ledger.at[A], room.app.ledger.written = 6, {}  # a rebalance: it is read again from there
        for _ in range(11):
            await room.look()
        assert room.app.fetches[1:] == [{A: 6}]
        assert room.reports[-1][-1] == 1072.0 + 6000.0

    asyncio.run(go())


def test_a_broker_that_does_not_say_how_old_records_are_is_asked_again_and_the_stall_counts_on() -> None:
    async def go() -> None:
        room = Room(stall_s=30.0)
        room.app.ends[A] = 10
        room.app.written = lambda offset: BrokerError("log.db is damaged")
        looks = [await room.look() for _ in range(32)]
        assert looks == [None] * 31 + ["records are unread and none was read for 31 s"]
        assert [oldest_s for _, _, _, oldest_s in room.reports] == [*range(32)]
        assert len(room.app.fetches) == 3

    asyncio.run(go())


def test_a_record_that_was_seen_to_come_is_as_old_as_that() -> None:
    """The one before it may be of yesterday."""

    async def go() -> None:
        room = Room()
        room.app.ends[A] = 10
        room.app.ledger.at[A] = 10
        room.app.ledger.written[A] = UNIX_S - 86400.0
        await room.look()
        room.app.ends[A] = 11
        await room.look()
        await room.look(3)
        assert [oldest_s for _, _, _, oldest_s in room.reports] == [0.0, 0.0, 3.0]

    asyncio.run(go())


def test_a_partition_that_is_read_again_is_as_old_as_where_reading_begins() -> None:
    """After a rebalance: from the last release on, which may be long before what was seen to come."""

    async def go() -> None:
        room = Room()
        for end in (10, 20, 30):
            room.app.ends[A] = room.app.ledger.at[A] = end
            await room.look(100)
        room.app.ledger.at[A] = 15
        await room.look()
        room.app.ledger.at[A], room.app.ledger.written[A] = 16, UNIX_S + 700.0
        await room.look()
        assert [oldest_s for _, _, _, oldest_s in room.reports] == [0.0, 0.0, 0.0, 0.0, 602.0]

    asyncio.run(go())


def test_a_position_past_the_end_is_no_lag() -> None:
    """The end was asked first, and records came in between."""

    async def go() -> None:
        room = Room()
        room.app.ledger.at = {A: 7}
        room.app.ends = {A: 5}
        assert await room.look(STALL_S * 2) is None
        assert room.reports == [("sink", "samples", 0, 0.0)]

    asyncio.run(go())


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "sink: records are unread and none was read for"),
        (OSError("gone"), "sink: records are unread and none was read for"),
        (TimeoutError("silent"), "sink: the broker did not say where topics end within 0 s"),
    ],
)
def test_the_app_is_ended_once_with_the_reason(answer: BaseException | None, message: str) -> None:
    """Also where the broker fails, or says nothing for as long as a stall may last."""

    async def go() -> None:
        room = Room(stall_s=0.05)
        room.app.ends[A] = 5
        room.app.answer = answer
        task = asyncio.create_task(room.dog.watch())
        while not task.done():
            room.now += 0.01
            await asyncio.sleep(0)
            if isinstance(answer, TimeoutError):
                await asyncio.sleep(0.01)
        await task
        (reason,) = room.app.crashes
        assert isinstance(reason, DeliveryError)
        assert str(reason).startswith(message)

    asyncio.run(go())


def test_watching_ends_with_the_app() -> None:
    async def go() -> None:
        room = Room()
        room.app.should_stop = True
        await asyncio.wait_for(room.dog.watch(), 5)
        assert room.app.crashes == []

    asyncio.run(go())
