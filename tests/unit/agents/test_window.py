"""What a window worker does around its lanes."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.types import TP

from openanomaly.agents.emit import EmitChoice
from openanomaly.agents.window import WindowWorker
from openanomaly.agents.window_lane import Lane
from openanomaly.broker.dead_letter import DeadLetters
from openanomaly.broker.faust_app import BrokerConfig, make_app
from openanomaly.broker.topics import topics
from openanomaly.core.windows.records import Record
from openanomaly.settings import WindowSettings
from openanomaly.telemetry import Telemetry
from unit.core.windows import drive


class Stream:
    """One record, and then the end."""

    def noack(self) -> "Stream":
        return self

    async def events(self) -> AsyncIterator[Any]:
        yield SimpleNamespace(message=SimpleNamespace(partition=0, offset=7, value=b"x", timestamp=1.0))


@pytest.fixture
def worker(tmp_path: Path) -> WindowWorker:
    app = make_app("window", BrokerConfig(f"embedded://{tmp_path}", partitions=2))
    names = topics("t", 2)
    return WindowWorker(
        app, WindowSettings(), [drive.pipeline()], names, Telemetry().window, DeadLetters(app, names)
    )


def test_steps_are_kept_for_as_long_as_samples_may_wait_for_a_worker(worker: WindowWorker) -> None:
    pipeline, specs = drive.pipeline(), worker.app.specs
    ring = next(spec for name, spec in specs.items() if name.endswith("ring-changelog"))
    waited_s, window_s = specs["t.samples"].retention_s, pipeline.context * pipeline.step_s
    assert ring.retention_s is not None
    assert waited_s is not None
    assert ring.retention_s >= waited_s + window_s


def test_a_record_that_comes_before_its_lane_is_built_waits_for_it(worker: WindowWorker) -> None:
    async def scenario() -> None:
        offered: list[int] = []

        async def offer(offset: int, raw: object) -> None:
            offered.append(offset)

        received: list[Any] = []
        worker._ledgers["samples"] = cast("Any", SimpleNamespace(receive=lambda e: not received.append(e)))
        reading = asyncio.create_task(worker._read_samples(Stream()))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not received
        worker.lanes[0] = cast("Lane", SimpleNamespace(offer_samples=offer))
        worker._has_lanes.set()
        await asyncio.wait_for(reading, 5)
        assert offered == [7]

    asyncio.run(scenario())


def test_a_partition_that_begins_anew_gives_its_series_back(worker: WindowWorker) -> None:
    held = worker.partitions[0] = drive.partition()
    held.budget = worker.budget
    out = held.put(drive.frame([("a", 1000, 1.0), ("b", 1000, 1.0)]), 0, 1000)
    assert worker.budget.used == 2

    worker.apply("state", 0, 5, out.catalogue[0].key, out.catalogue[0].value)

    assert worker.budget.used == 0
    assert worker.counts()["admitted"] == 2
    worker.partitions[0].start()
    assert worker.budget.used == 2


def test_series_beyond_the_limit_are_told_of_once_a_minute(
    worker: WindowWorker, caplog: pytest.LogCaptureFixture
) -> None:
    worker.budget.limit = 1
    held = worker.partitions[0] = drive.partition()
    held.budget = worker.budget
    offsets = itertools.count()

    def told(now_s: float, *names: str) -> list[str]:
        at_ms = int(now_s * 1000)
        held.put(drive.frame([(name, at_ms, 1.0) for name in names]), next(offsets), at_ms)
        caplog.clear()
        worker._tell_refused(now_s)
        return [f"{record.levelname} {record.getMessage()}" for record in caplog.records]

    assert told(100, "a") == []
    (line,) = told(101, "a", "b")
    assert line.startswith("WARNING 1 samples refused")
    assert line.endswith("1 of at most 1 are held; raise window.max_series")
    assert told(130, "b", "c") == []
    (line,) = told(161, "b")
    assert line.startswith("WARNING 3 samples refused")
    assert told(300, "a") == []
    worker.drop("state", 0)  # what a partition counted stays told when it has left
    assert told(400) == []


def test_emit_is_chosen_by_the_series_of_all_workers(
    worker: WindowWorker, caplog: pytest.LogCaptureFixture
) -> None:
    """One of two partitions is ours, and its series have two windows each."""
    caplog.set_level("INFO", "openanomaly")
    worker._emit = EmitChoice("auto", 3)
    held = worker.partitions[0] = drive.partition(drive.pipeline(), drive.pipeline("slow", step_s=60))
    worker.lanes[0] = cast("Lane", SimpleNamespace(partition=held))

    held.put(drive.frame([("a", 1000, 1.0)]), 0, 1000)
    worker._choose_emit()
    assert (held.series, held.emit) == (2, "all")
    held.put(drive.frame([("b", 1000, 1.0)]), 1, 1000)
    worker._choose_emit()
    assert held.emit == "episodes"
    assert [record.getMessage() for record in caplog.records] == [
        "emitting all scores (1 series in 1 of 2 partitions, 2 in all; sink.emit=auto, "
        "sink.emit_all_limit=3)",
        "emitting episodes' scores (2 series in 1 of 2 partitions, 4 in all; sink.emit=auto, "
        "sink.emit_all_limit=3)",
    ]


def test_others_go_on_while_series_are_looked_up(worker: WindowWorker) -> None:
    """Of a million series, most are looked at for nothing."""
    held = worker.partitions[0] = drive.partition()
    held.put(drive.frame([(f"m{i}", 1000, 1.0) for i in range(3000)]), 0, 1000)

    async def scenario() -> None:
        turns = 0

        async def receive() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        receiving = asyncio.create_task(receive())
        assert await worker.explain("none_of_them") == []
        assert turns >= 10
        receiving.cancel()

    asyncio.run(scenario())


def test_series_that_leave_while_they_are_looked_up_are_passed_over(worker: WindowWorker) -> None:
    held = worker.partitions[0] = drive.partition()
    held.put(drive.frame([(f"m{i}", 1000, 1.0) for i in range(600)]), 0, 1000)

    async def scenario() -> list[str]:
        looking = asyncio.create_task(worker.explain('{__name__=~"m2|m50|m590"}'))
        await asyncio.sleep(0)
        held.evict(10**9, 1000)
        return [series["labels"]["__name__"] for series in await looking]

    assert asyncio.run(scenario()) == ["m2", "m50"]


def test_as_many_series_are_told_of_as_are_asked_for(worker: WindowWorker) -> None:
    held = worker.partitions[0] = drive.partition()
    held.put(drive.frame([(f"m{i}", 1000, 1.0) for i in range(600)]), 0, 1000)
    found = asyncio.run(worker.explain('{__name__=~"m.*5"}', limit=45))
    assert [int(series["labels"]["__name__"][1:]) for series in found] == list(range(5, 455, 10))


def test_series_are_counted_once_however_many_windows_they_are_in(worker: WindowWorker) -> None:
    """All of them, beyond what is told of at once; those of partitions that are not ours are not known."""
    held = worker.partitions[0] = drive.partition(drive.pipeline(), drive.pipeline("slow", step_s=60))
    held.put(drive.frame([(f"m{i}", 1000, 1.0) for i in range(600)]), 0, 1000)
    assert held.series == 1200
    asked = {'{__name__=~"m.*5"}': 60, "m7": 1, '{__name__=~"m.+"}': 600, "none": 0}
    for selector, series in asked.items():
        answer = asyncio.run(worker.count(selector))
        assert answer == {"series": series, "partitions": 1, "partitions_of_all": 2}


class Broker:
    """Takes records when it is told to."""

    def __init__(self) -> None:
        self.taken: list[asyncio.Future[list[int]]] = []
        self.answers = asyncio.Event()

    async def maybe_start(self) -> None:
        pass

    def append_all(self, topic: str, records: Any) -> "asyncio.Future[list[int]]":
        self.taken.append(asyncio.get_running_loop().create_future())
        return self.taken[-1]

    async def begin_offsets(self, tps: Any) -> dict[Any, int]:
        await self.answers.wait()
        return dict.fromkeys(tps, 0)

    async def highwaters(self, *tps: Any) -> dict[Any, int]:
        return dict.fromkeys(tps, 0)


def test_in_a_rebalance_nothing_is_written_and_what_is_on_its_way_is_waited_for(worker: WindowWorker) -> None:
    async def scenario() -> None:
        broker = worker.app.producer = worker.app.consumer = cast("Any", Broker())
        record = [Record(b"key", b"value")]
        worker._writes.open()
        before = asyncio.create_task(worker._writes.state(0, record))
        await settle()
        worker.revoked("ring")
        quiet = asyncio.create_task(worker._writes.wait_until_quiet())
        behind = asyncio.create_task(worker._writes.ring(0, record))
        await settle()
        assert len(broker.taken) == 1
        assert not quiet.done(), "the partition may not be given away yet"

        broker.taken[0].set_result([0])
        await asyncio.wait_for(asyncio.gather(before, quiet), 5)
        await settle()
        assert len(broker.taken) == 1
        behind.cancel()

    asyncio.run(scenario())


def test_lanes_of_a_recovery_that_was_overtaken_are_not_started(worker: WindowWorker) -> None:
    async def scenario() -> None:
        async def nothing() -> None:
            pass

        broker = worker.app.producer = worker.app.consumer = cast("Any", Broker())
        worker._dead_letters = cast("Any", SimpleNamespace(catch_up=nothing))
        first = asyncio.create_task(worker._start_lanes({0}, worker._recoveries))
        await settle()
        worker.revoked("ring")
        second = asyncio.create_task(worker._start_lanes({1}, worker._recoveries))
        await settle()
        broker.answers.set()
        await asyncio.wait_for(asyncio.gather(first, second), 5)
        assert set(worker.lanes) == {1}
        await worker.lanes[1].stop(flush=False)

    asyncio.run(scenario())


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_offsets_are_released_until_they_are_committed(worker: WindowWorker) -> None:
    """Also where a rebalance, which left us the partition, has forgotten them on their way."""

    async def scenario() -> None:
        released: list[tuple[str, int, int]] = []
        asked: list[dict[TP, int]] = []
        commits = asyncio.Queue[None]()

        async def committed_through(offsets: dict[TP, int]) -> None:
            asked.append(offsets)
            await commits.get()

        for topic in ("samples", "forecasts"):
            ledger = SimpleNamespace(release=lambda p, n, topic=topic: released.append((topic, p, n)))
            worker._ledgers[topic] = cast("Any", ledger)
        worker.app.consumer = cast("Any", SimpleNamespace(committed_through=committed_through))
        worker._writes.open()
        release = asyncio.create_task(worker._writes.release(1, 5, 3))
        await asyncio.sleep(0.01)
        assert asked == [{TP("t.samples", 1): 5, TP("t.forecasts", 1): 3}]
        worker.revoked("state")
        commits.put_nowait(None)
        await asyncio.sleep(0.01)
        assert len(asked) == 1
        worker._writes.open()
        await asyncio.sleep(0.01)
        assert len(asked) == 2
        assert not release.done()
        commits.put_nowait(None)
        await asyncio.wait_for(release, 5)
        assert released == [("samples", 1, 5), ("forecasts", 1, 3)] * 2

    asyncio.run(scenario())


def test_longer_windows_are_kept_for_longer(worker: WindowWorker) -> None:
    async def scenario() -> tuple[list[float], list[str]]:
        kept, asked = [], []

        async def ensure() -> None:
            asked.append("topics")

        worker.app.ensure_topics = ensure  # type: ignore[method-assign]
        worker.app.add_future = lambda coroutine: asyncio.ensure_future(coroutine)  # type: ignore[method-assign]
        for context in (128, 64):
            worker.prepare([drive.pipeline(context=context)])()
            await asyncio.sleep(0)
            name = next(name for name in worker.app.specs if name.endswith("ring-changelog"))
            kept.append(worker.app.specs[name].retention_s)
        return kept, asked

    before = next(s.retention_s for n, s in worker.app.specs.items() if n.endswith("ring-changelog"))
    kept, asked = asyncio.run(scenario())
    assert before is not None
    assert kept == [before + 64 * 10 * 1.5] * 2, "what is kept for longer than needed stays"
    assert asked == ["topics"]
