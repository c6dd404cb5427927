"""What our consumers change in Faust's: begin, release and commit, with a broker that is a dictionary."""

import asyncio
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from openanomaly.broker.delivery import ReleasedOffsets
from openanomaly.broker.faust_app import App, BrokerConfig, make_app

A, B = TP("samples", 0), TP("samples", 1)
CHANGELOG = TP("oa-ring-changelog", 0)


class Consumer(ReleasedOffsets):
    """Its broker: what is committed, what is the earliest, what was asked of it."""

    def __init__(self, app: App) -> None:
        self.assigned = {A, B}
        self.in_broker: dict[TP, int | None] = {A: None, B: None}
        self.earliest: dict[TP, int] = {A: 0, B: 0}
        self.takes_commits = True
        self.commits: list[dict[TP, int]] = []
        self.sought: dict[TP, int] = {}

        async def nothing(*args: Any, **kwargs: Any) -> None:
            pass

        transport = SimpleNamespace(app=app, create_transaction_manager=lambda **_: None)
        super().__init__(transport, nothing, nothing, nothing)

    def assignment(self) -> set[TP]:
        return self.assigned

    async def committed_offsets(self, tps: Iterable[TP]) -> dict[TP, int | None]:
        return {tp: self.in_broker[tp] for tp in tps}

    async def earliest_offsets(self, *tps: TP) -> Mapping[TP, int]:
        return {tp: self.earliest[tp] for tp in tps}

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        self.sought = dict(partitions)
        self._read_offset.update(partitions)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        self.commits.append(dict(offsets))
        if self.takes_commits:
            self.in_broker.update(offsets)
        return self.takes_commits


Consumer.__abstractmethods__ = frozenset()  # type: ignore[attr-defined] # the rest is never called


class Producer:
    async def flush(self) -> None:
        pass


@pytest.fixture
def consumer() -> Consumer:
    app = make_app("sink", BrokerConfig("embedded://unused"))
    app._producer = Producer()
    return Consumer(app)


@pytest.mark.parametrize(
    ("committed", "earliest", "begin", "expired"),
    [
        (None, 0, 0, None),
        (None, 9, 9, None),  # a new group has lost nothing
        (0, 0, 0, None),
        (1, 0, 1, None),
        (9, 9, 9, None),
        (8, 9, 9, 1),
        (0, 9, 9, 9),
    ],
)
def test_delivery_begins_at_the_committed_offset_or_the_earliest_there_is(
    consumer: Consumer, committed: int | None, earliest: int, begin: int, expired: int | None
) -> None:
    consumer.in_broker[A], consumer.earliest[A] = committed, earliest

    asyncio.run(consumer.perform_seek())

    assert consumer.begin == consumer.sought == {A: begin, B: 0}
    assert consumer.expired.get(A) == expired
    assert consumer._read_offset[A] is None  # else Faust takes the first record for one it has read


def test_what_retention_took_is_committed_as_finished(consumer: Consumer) -> None:
    consumer.in_broker[A], consumer.earliest[A] = 2, 9

    async def go() -> None:
        await consumer.perform_seek()
        await consumer.commit()
        await consumer.perform_seek()

    asyncio.run(go())
    assert consumer.in_broker == {A: 9, B: None}
    assert consumer.expired == {A: 7}


def test_what_retention_took_counts_once_however_many_rebalances_find_it(consumer: Consumer) -> None:
    consumer.in_broker[A], consumer.earliest[A] = 2, 9

    async def go() -> None:
        await consumer.perform_seek()
        await consumer.perform_seek()
        consumer.earliest[A] = 12
        await consumer.perform_seek()

    asyncio.run(go())
    assert consumer.expired == {A: 10}


def test_changelogs_are_not_sought(consumer: Consumer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "_is_changelog_tp", lambda tp: tp == CHANGELOG)
    consumer.assigned = {A, CHANGELOG}

    asyncio.run(consumer.perform_seek())

    assert consumer.sought == consumer.begin == {A: 0}


def test_what_is_released_is_committed_exactly_and_once(consumer: Consumer) -> None:
    async def go() -> None:
        await consumer.perform_seek()
        await consumer.commit()
        consumer.release(A, 1)
        await consumer.commit()
        await consumer.commit()
        consumer.release(A, 5)
        consumer.release(A, 4)  # of a batch that ended late
        consumer.release(B, 2)
        await consumer.commit()

    asyncio.run(go())
    assert consumer.commits == [{A: 1}, {A: 5, B: 2}]


def test_a_commit_that_failed_is_tried_again(consumer: Consumer) -> None:
    async def go() -> None:
        await consumer.perform_seek()
        consumer.release(A, 3)
        consumer.takes_commits = False
        await consumer.commit()
        consumer.takes_commits = True
        await consumer.commit()

    asyncio.run(go())
    assert consumer.commits == [{A: 3}, {A: 3}]
    assert consumer.in_broker[A] == 3


def test_acknowledgements_and_gaps_commit_nothing(consumer: Consumer) -> None:
    async def go() -> SimpleNamespace:
        await consumer.perform_seek()
        message = Message()
        consumer._unacked_messages.add(message)
        assert consumer.ack(message) is False
        await consumer._add_gap(A, 0, 5)
        await consumer.commit()
        return message

    message = asyncio.run(go())
    assert message.acked
    assert not consumer._unacked_messages
    assert consumer.commits == []


class Message(SimpleNamespace):
    acked, topic, partition, offset, tp = False, "samples", 0, 0, A

    __hash__ = object.__hash__


def test_what_is_released_after_its_partition_left_is_not_committed(consumer: Consumer) -> None:
    async def go() -> None:
        await consumer.perform_seek()
        consumer.release(A, 3)
        consumer.release(B, 3)
        await consumer.on_partitions_revoked({A, B})
        consumer.assigned = {B}
        consumer.in_broker[B] = 2
        await consumer.perform_seek()
        consumer.release(A, 4)
        await consumer.commit()

    asyncio.run(go())
    assert consumer.commits == []
    assert consumer.begin == {B: 2}
