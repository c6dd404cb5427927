"""The ledger: records come without a gap and are released as a prefix, whatever order they finish in."""

from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from openanomaly.broker.ledger import Ledger
from openanomaly.errors import DeliveryError

A, B = TP("samples", 0), TP("samples", 1)


class Consumer:
    """Keeps what was released last, and every release."""

    def __init__(self, begin: dict[TP, int]) -> None:
        self.begin = begin
        self.released: dict[TP, int] = {}
        self.releases: list[int] = []

    def release(self, tp: TP, offset: int) -> None:
        self.released[tp] = offset
        self.releases.append(offset)


def at_zero() -> dict[TP, int]:
    return {A: 0, B: 0}


class Room:
    def __init__(self, begin: dict[TP, int] | None = None) -> None:
        self.consumer = Consumer(at_zero() if begin is None else begin)
        self.app: Any = SimpleNamespace(consumer=self.consumer, consumer_generation_id=1, ledgers=[])
        self.ledger = Ledger(self.app, "samples")

    def receive(
        self, offset: int, tp: TP = A, generation: int | None = None, written_s: float | None = None
    ) -> bool:
        generation = self.app.consumer_generation_id if generation is None else generation
        message = SimpleNamespace(
            topic=tp.topic,
            partition=tp.partition,
            offset=offset,
            generation_id=generation,
            timestamp=written_s,
        )
        return self.ledger.receive(SimpleNamespace(message=message))

    def rebalance(self, begin: dict[TP, int]) -> None:
        self.app.consumer_generation_id += 1
        self.consumer.begin = begin


@given(st.permutations(range(12)), st.integers(0, 12))
def test_what_is_released_is_the_prefix_of_finished_records(order: list[int], finished: int) -> None:
    room = Room({A: 100})
    for offset in range(100, 112):
        assert room.receive(offset)
    done: set[int] = set()
    for number in order[:finished]:
        room.ledger.done(0, 100 + number)
        done.add(number)
        prefix = next(n for n in range(13) if n not in done)
        assert room.consumer.released.get(A, 100) == 100 + prefix
    assert room.consumer.releases == sorted(set(room.consumer.releases))


def test_one_record_that_is_not_finished_is_not_passed() -> None:
    """Faust's issue 606 commits over a hole of one."""
    room = Room()
    for offset in range(3):
        room.receive(offset)
    room.ledger.done(0, 1)
    room.ledger.done(0, 2)
    assert room.consumer.releases == []
    room.ledger.done(0, 0)
    assert room.consumer.releases == [3]


def test_partitions_do_not_mix() -> None:
    room = Room()
    for offset in range(3):
        assert room.receive(offset, A)
        assert room.receive(offset, B)
    room.ledger.done(0, 0)
    room.ledger.done(1, 0)
    room.ledger.done(1, 1)
    assert room.consumer.released == {A: 1, B: 2}


def test_a_gap_names_what_is_missing() -> None:
    room = Room()
    assert room.receive(0)
    with pytest.raises(
        DeliveryError, match=r"samples\[0\]: offset 4 came, 1 was expected: 3 records are missing"
    ):
        room.receive(4)


def test_a_gap_before_the_first_record_is_one_too() -> None:
    room = Room({A: 7})
    with pytest.raises(DeliveryError, match=r"offset 8 came, 7 was expected: 1 records"):
        room.receive(8)


def test_duplicates_are_skipped() -> None:
    room = Room({A: 5})
    received = [room.receive(offset) for offset in (4, 5, 5, 6, 5, 6, 7)]
    assert received == [False, True, False, True, False, False, True]


def test_a_record_fetched_before_a_rebalance_is_skipped() -> None:
    room = Room()
    assert room.receive(0)
    room.rebalance({A: 0})
    assert not room.receive(1, generation=1)
    assert room.receive(0)
    assert room.receive(1)


def test_after_a_rebalance_records_are_expected_from_its_beginning() -> None:
    """Also where retention, not we, has moved it on."""
    room = Room()
    for offset in range(5):
        room.receive(offset)
    room.ledger.done(0, 3)
    room.rebalance({A: 2})
    assert room.ledger.positions() == {A: 2}
    assert room.receive(2)
    assert room.receive(3)
    room.ledger.done(0, 2)
    assert room.consumer.releases == [3]  # 3 was finished by the generation before, and is repeated

    room.rebalance({A: 40})
    assert room.receive(40)
    assert room.ledger.positions() == {A: 41}


@pytest.mark.parametrize("offset", [3, 4, 100], ids=["of before", "not delivered yet", "far ahead"])
def test_what_was_not_delivered_cannot_be_done(offset: int) -> None:
    room = Room({A: 4})
    room.ledger.done(0, offset)
    assert room.consumer.releases == []
    room.receive(4)
    room.receive(5)
    room.ledger.done(0, 6)
    room.ledger.done(0, 5)
    assert room.consumer.releases == []
    room.ledger.done(0, 4)
    assert room.consumer.releases == [6]


def test_done_twice_is_done_once() -> None:
    room = Room()
    room.receive(0)
    room.receive(1)
    for _ in range(2):
        room.ledger.done(0, 0)
    assert room.consumer.releases == [1]


def test_a_checkpoint_releases_all_below_it() -> None:
    room = Room()
    for offset in range(6):
        room.receive(offset)
    room.ledger.done(0, 4)
    room.ledger.release(0, 3)
    assert room.consumer.releases == [3]
    room.ledger.done(0, 2)  # long finished
    assert room.consumer.releases == [3]
    room.ledger.done(0, 3)
    assert room.consumer.releases == [3, 5]


def test_positions_are_where_reading_goes_on() -> None:
    room = Room({A: 3, B: 8, TP("forecasts", 0): 1})
    assert room.ledger.positions() == {A: 3, B: 8}
    room.receive(3)
    room.receive(4)
    assert room.ledger.positions() == {A: 5, B: 8}
    room.rebalance({B: 8})
    assert room.ledger.positions() == {B: 8}


def test_it_knows_when_the_last_record_was_written_until_the_next_rebalance() -> None:
    room = Room()
    assert room.ledger.written_s() == {}
    room.receive(0, A, written_s=100.0)
    room.receive(0, B, written_s=None)
    room.receive(1, A, written_s=101.5)
    room.receive(0, A, written_s=100.0)  # delivered twice
    assert room.ledger.written_s() == {A: 101.5}
    room.receive(2, A, written_s=-0.001)  # what Kafka says of a record without a time
    assert room.ledger.written_s() == {}
    room.receive(3, A, written_s=103.0)
    room.rebalance({A: 2})
    assert room.ledger.written_s() == {}
