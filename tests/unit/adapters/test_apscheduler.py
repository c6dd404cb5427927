"""Jobs by the wall clock: when they are due, that one never overlaps itself, and how they end."""

import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from answering import wait_for
from openanomaly.adapters.apscheduler import APSchedulerAdapter, Grid

PERIOD_MS = 20


def at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


@pytest.mark.parametrize(
    ("previous_ms", "now_ms", "next_ms"),
    [
        (60_000, 60_010, 63_000),  # the run at the start was at no point of the grid
        (63_000, 63_000, 123_000),
        (63_000, 63_001, 123_000),
        (62_999, 62_999, 63_000),
        (63_000, 300_000, 303_000),  # what was missed is not made up for one by one
        (63_000, 303_000, 303_000),
        (303_000, 63_000, 363_000),  # the clock was set back
    ],
)
def test_the_next_run_is_the_next_point_of_the_grid(previous_ms: int, now_ms: int, next_ms: int) -> None:
    grid = Grid(period_ms=60_000, offset_ms=3_000)
    assert grid.get_next_fire_time(at(previous_ms), at(now_ms)) == at(next_ms)


def test_the_first_run_is_now() -> None:
    assert Grid(60_000, 3_000).get_next_fire_time(None, at(12_345)) == at(12_345)


def test_the_grid_does_not_drift() -> None:
    grid, when = Grid(period_ms=333, offset_ms=7), at(1_700_000_000_000)
    for _ in range(10_000):
        when = grid.get_next_fire_time(when, when)
    first = (1_700_000_000_000 - 7) // 333 + 1
    assert round(when.timestamp() * 1000) == (first + 9_999) * 333 + 7


class Work:
    """A job that can be held up."""

    def __init__(self) -> None:
        self.begun = self.at_once = self.most_at_once = 0
        self.may_go = threading.Event()
        self.may_go.set()
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self.begun += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self.may_go.wait(60)
        with self._lock:
            self.at_once -= 1


@pytest.fixture
def scheduler() -> Iterator[APSchedulerAdapter]:
    made = APSchedulerAdapter(threads=2)
    yield made
    assert made.stop(30)


def test_jobs_run_again_and_again(scheduler: APSchedulerAdapter) -> None:
    one, other = Work(), Work()
    scheduler.every("one", PERIOD_MS, 0, one)
    scheduler.start()
    scheduler.every("other", PERIOD_MS, 5, other)
    wait_for(lambda: min(one.begun, other.begun) >= 3)


def test_a_job_is_at_work_once_and_does_not_pile_up() -> None:
    late: list[str] = []
    scheduler = APSchedulerAdapter(threads=4, late=late.append)
    slow, other = Work(), Work()
    slow.may_go.clear()
    scheduler.every("slow", PERIOD_MS, 0, slow)
    scheduler.every("other", PERIOD_MS, 0, other)
    scheduler.start()
    wait_for(lambda: late.count("slow") >= 5)
    assert slow.begun == 1
    wait_for(lambda: other.begun >= 3)
    slow.may_go.set()
    wait_for(lambda: slow.begun >= 3)
    assert scheduler.stop(30)
    assert slow.most_at_once == other.most_at_once == 1


def test_a_job_that_crashes_comes_again(
    scheduler: APSchedulerAdapter, caplog: pytest.LogCaptureFixture
) -> None:
    times: list[int] = []

    def crash() -> None:
        times.append(1)
        raise RuntimeError("a mistake")

    with caplog.at_level(logging.ERROR):
        scheduler.every("bad", PERIOD_MS, 0, crash)
        scheduler.start()
        wait_for(lambda: len(times) >= 3)
    assert "bad crashed" in caplog.text
    assert "a mistake" in caplog.text


def test_a_job_of_the_same_name_takes_the_place(scheduler: APSchedulerAdapter) -> None:
    old, new = Work(), Work()
    scheduler.every("job", PERIOD_MS, 0, old)
    scheduler.start()
    wait_for(lambda: old.begun >= 1)
    scheduler.every("job", PERIOD_MS, 0, new)
    wait_for(lambda: new.begun >= 2)
    begun = old.begun
    wait_for(lambda: new.begun >= 5)
    assert old.begun == begun


def test_a_job_that_is_removed_begins_no_more(scheduler: APSchedulerAdapter) -> None:
    gone, there = Work(), Work()
    scheduler.every("gone", PERIOD_MS, 0, gone)
    scheduler.every("there", PERIOD_MS, 0, there)
    scheduler.start()
    wait_for(lambda: gone.begun >= 1)
    scheduler.remove("gone")
    wait_for(lambda: there.begun >= 2)  # one that was on its way has begun
    begun, more = gone.begun, there.begun + 3
    wait_for(lambda: there.begun >= more)
    assert gone.begun == begun


def test_the_end_waits_for_who_is_at_work_and_begins_nothing() -> None:
    scheduler = APSchedulerAdapter(threads=1)
    slow, queued = Work(), Work()
    slow.may_go.clear()
    scheduler.every("slow", PERIOD_MS, 0, slow)
    scheduler.start()
    wait_for(lambda: slow.begun == 1)
    scheduler.every("queued", PERIOD_MS, 0, queued)  # waits for the only thread
    assert not scheduler.stop(0.1)
    slow.may_go.set()
    assert scheduler.stop(30)
    assert (slow.begun, queued.begun) == (1, 0)


def test_the_end_before_the_beginning() -> None:
    assert APSchedulerAdapter(threads=1).stop(1)
