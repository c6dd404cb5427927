"""How new series are asked for, and what becomes of those whose past cannot be had."""

import asyncio
from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from openanomaly.agents import backfill
from openanomaly.agents.backfill import Backfill
from openanomaly.agents.window_lane import Change, Lane
from openanomaly.core.frames import SampleFrame
from openanomaly.core.ports.tsdb_client import Samples, TSDBClient
from openanomaly.core.series import encode_labels
from openanomaly.core.series_column import SeriesColumn
from openanomaly.core.windows.admission import Budget
from openanomaly.core.windows.partition import Partition
from openanomaly.core.windows.plan import plan
from openanomaly.errors import QueryRejectedError, TsdbUnavailableError
from openanomaly.settings import BackfillSettings
from openanomaly.telemetry import BackfillMetrics
from unit.core.windows import drive

START_MS, STEP_MS = 1_700_000_000_000, 10_000
Answer = Samples | Exception


class Database:
    """Has a sample a step of every series that is asked for; the first answers are given."""

    shown = "http://database"

    def __init__(self, *first: Answer) -> None:
        self.first = list(first)
        self.asked: list[tuple[str, int, int]] = []

    def raw_query(self, selector: str, start_ms: int, end_ms: int) -> Samples:
        self.asked.append((selector, start_ms, end_ms))
        if self.first:
            answer = self.first.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        name, *hosts = selector.split('"')[1::2]
        blocks = [drive.label_block(name)]
        if hosts:
            blocks = [encode_labels((("__name__", name), ("host", h))) for h in hosts[0].split("|")]
        times = np.arange(start_ms, end_ms, STEP_MS)
        row = np.repeat(np.arange(len(blocks), dtype=np.uint32), len(times))
        return Samples(blocks, row, np.tile(times, len(blocks)), np.sin(np.arange(len(row))))


class OneLane:
    """A partition whose changes happen at once."""

    is_replaying = False

    def __init__(self) -> None:
        self.partition = Partition(0, plan([drive.pipeline()]), Budget(100), has_history=True)
        self.partition.start()
        self.changes = 0

    def change(self, change: Change) -> None:
        self.changes += 1
        change(self.partition, 0)

    def put(self, *names: str) -> None:
        offset = self.partition.position.samples
        self.partition.put(drive.frame([(name, START_MS, 1.0) for name in names]), offset, START_MS)

    def put_hosts(self, *hosts: str) -> None:
        blocks = [encode_labels((("__name__", "load"), ("host", host))) for host in hosts]
        n = len(blocks)
        frame = SampleFrame(
            SeriesColumn.of(blocks), np.arange(n, dtype=np.uint32), np.full(n, START_MS), np.ones(n), START_MS
        )
        self.partition.put(frame, self.partition.position.samples, START_MS)


class Run:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, database: Database, **settings: object) -> None:
        monkeypatch.setattr(backfill, "_LOOK_S", 0.001)
        monkeypatch.setattr(backfill, "_BACKOFF_S", (0.001, 0.002))
        self.registry = CollectorRegistry()
        self.lane, self.other = OneLane(), OneLane()
        self.work = Backfill(
            cast("TSDBClient", database),
            BackfillSettings(queries_per_s=1000, **settings),
            lambda: {0: cast("Lane", self.lane), 1: cast("Lane", self.other)},
            BackfillMetrics(self.registry),
        )

    def until(self, is_true: Callable[[], object]) -> None:
        async def scenario() -> None:
            running = asyncio.create_task(self.work.run())
            async with asyncio.timeout(30):
                while not is_true():  # noqa: ASYNC110 (nothing tells when)
                    await asyncio.sleep(0.001)
            running.cancel()

        asyncio.run(scenario())

    def series(self, result: str) -> float | None:
        return self.registry.get_sample_value("openanomaly_backfill_series_total", {"result": result})

    @property
    def filled(self) -> int:
        return sum(lane.partition.counts["backfilled"] for lane in (self.lane, self.other))


def test_new_series_are_asked_for_together_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database()
    run = Run(monkeypatch, database, series_per_query=3)
    run.lane.put("a", "b", "c", "d", "e")
    assert run.registry.get_sample_value("openanomaly_backfill_waiting_series") == 5

    run.until(lambda: run.filled == 5)

    assert sorted(selector for selector, _, _ in database.asked) == [
        '{__name__="a"}', '{__name__="b"}', '{__name__="c"}', '{__name__="d"}', '{__name__="e"}',
    ]  # fmt: skip
    (spans,) = {(start, end) for _, start, end in database.asked}
    assert spans == (START_MS - 64 * STEP_MS, START_MS - 1), (
        "a context, which is more than what scoring wants"
    )
    assert run.series("learned") == 5
    assert run.registry.get_sample_value("openanomaly_backfill_waiting_series") == 0


def test_series_of_one_name_are_asked_for_in_one_query_whatever_lane_they_are_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database = Database()
    run = Run(monkeypatch, database, series_per_query=3)
    run.lane.put_hosts("a", "c", "e")
    run.other.put_hosts("b", "d")
    run.until(lambda: run.filled == 5)

    assert [selector for selector, _, _ in database.asked] == [
        '{__name__="load",host=~"a|b|c"}', '{__name__="load",host=~"d|e"}',
    ]  # fmt: skip
    assert run.lane.partition.counts["backfilled"] == 3
    assert (run.lane.changes, run.other.changes) == (1, 1), "each change costs a lane two checkpoints"


def test_what_takes_long_is_handed_over_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "_HAND_OVER_S", 0.0)
    run = Run(monkeypatch, Database(), series_per_query=1)
    run.lane.put_hosts("a", "b", "c")
    run.until(lambda: run.filled == 3)

    assert run.lane.changes == 3


def test_a_mistake_of_ours_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, Database(ValueError("ours")), series_per_query=1)
    run.lane.put("a", "b")
    run.until(lambda: run.filled == 1)

    assert (run.series("failed"), run.series("learned")) == (1, 1)


def test_history_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database()
    run = Run(monkeypatch, database, history_s=100)
    run.lane.put("a")
    run.until(lambda: run.filled == 1)

    assert database.asked[0][1] == START_MS - 100_000


def test_a_database_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, Database(TsdbUnavailableError("away"), TsdbUnavailableError("away")))
    run.lane.put("a")
    run.until(lambda: run.filled == 1)

    assert run.work.error is None
    assert run.series("learned") == 1


def test_who_is_refused_has_no_past_and_the_next_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, Database(QueryRejectedError("bad")), series_per_query=1)
    run.lane.put("a", "b")
    run.until(lambda: run.filled == 1)

    assert (run.series("refused"), run.series("learned")) == (1, 1)


def test_a_series_of_which_nothing_is_stored_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, Database(Samples.none()))
    run.lane.put("a")
    run.until(lambda: run.series("without") == 1)

    assert run.filled == 0
