"""Cutting and splitting: what a target can take it gets, in order; what it refuses is told."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages import named
from openanomaly.adapters.remote_write.delivery import Delivery, Refusal
from openanomaly.adapters.remote_write.encode import ScoreEncoder
from openanomaly.errors import RejectedError, RequestTooLargeError
from scores import samples, score_frame

Rule = Callable[[list[int]], None]


class Atomic:
    """A target that takes a request as a whole or not at all; time series are known by their number."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.taken: list[int] = []
        self.requests: list[int] = []

    async def send(self, body: bytes) -> None:
        found = [int(dict(labels)["n"]) for labels, _, _ in samples(body)]
        self.requests.append(len(found))
        self.rule(found)
        self.taken += found


def deliver(target: Atomic, count: int, batch: int) -> tuple[list[Refusal], Delivery]:
    frame = score_frame([named("m", n=str(i)) for i in range(count)])
    delivery = Delivery(target.send, batch)
    return asyncio.run(delivery.deliver(ScoreEncoder().encode(frame).parts)), delivery


def refuse(bad: set[int]) -> Rule:
    def rule(found: list[int]) -> None:
        if hit := bad & set(found):
            raise RejectedError(f"{min(hit)} is bad")

    return rule


@given(st.integers(1, 60), st.integers(1, 25), st.data())
def test_all_but_the_offenders_arrive_in_order(count: int, batch: int, data: st.DataObject) -> None:
    bad = data.draw(st.sets(st.integers(0, count - 1), max_size=8))
    target = Atomic(refuse(bad))
    refused, _ = deliver(target, count, batch)
    assert target.taken == [i for i in range(count) if i not in bad]
    assert refused == [Refusal(i, i + 1, f"{i} is bad") for i in sorted(bad)]
    assert max(target.requests) <= batch


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_a_target_that_takes_small_requests_only_gets_such_from_then_on(limit: int) -> None:
    def rule(found: list[int]) -> None:
        if len(found) > limit:
            raise RequestTooLargeError("too many")

    target = Atomic(rule)
    refused, delivery = deliver(target, 500, 256)
    assert refused == []
    assert target.taken == list(range(500))
    assert limit / 2 <= delivery.batch_samples <= limit


def test_a_time_series_too_large_by_itself_is_refused() -> None:
    def rule(found: list[int]) -> None:
        if 5 in found:
            raise RequestTooLargeError("too large")

    target = Atomic(rule)
    refused, delivery = deliver(target, 8, 8)
    assert refused == [Refusal(5, 6, "too large")]
    assert delivery.batch_samples == 8
    assert target.taken == [0, 1, 2, 3, 4, 6, 7]


def test_a_target_that_refuses_everything_is_not_asked_for_ever() -> None:
    target = Atomic(refuse(set(range(3000))))
    refused, _ = deliver(target, 3000, 3000)
    assert len(target.requests) < 600
    assert [r.start for r in refused] == [0, *(r.stop for r in refused[:-1])]
    assert refused[-1].stop == 3000


def test_nothing_is_sent_for_nothing() -> None:
    target = Atomic(refuse(set()))
    assert deliver(target, 0, 10)[0] == []
    assert target.requests == []
