"""A lane takes inputs in one order and writes outputs in another; what others see comes last."""

import asyncio
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from openanomaly.agents.window_lane import Lane, Raw, Topic
from openanomaly.core.frames import ForecastFrame, SampleFrame
from openanomaly.core.pipelines.pipeline import Pipeline, ScoreOptions
from openanomaly.core.series import encode_labels
from openanomaly.core.series_column import SeriesColumn
from openanomaly.core.windows.admission import Budget
from openanomaly.core.windows.inputs import Item
from openanomaly.core.windows.output import Output
from openanomaly.core.windows.partition import Partition
from openanomaly.core.windows.plan import plan
from openanomaly.core.windows.records import Position, Record
from waiting import until

STEP_MS = 10_000
PIPELINE = Pipeline(name="test", step_s=10, score=ScoreOptions(warmup=1), group_by=())

NO_FORECASTS = Raw(b"\x08\x01", 0)
"""A forecast frame without series."""


class Journal:
    """Notes what a lane writes, in order; waits where the test tells it to."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.records: list[Record] = []
        self.rejected: list[int] = []
        self.noted: list[tuple[str, int, str]] = []
        self.released: list[tuple[int, int]] = []
        self.frames: list[tuple[int, float]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.commits = asyncio.Event()
        self.commits.set()

    async def state(self, partition: int, records: Sequence[Record]) -> None:
        await self.gate.wait()
        self.written.append("state")
        self.records += records

    async def ring(self, partition: int, records: Sequence[Record]) -> None:
        await self.gate.wait()
        self.written.append("ring")
        self.records += records

    async def results(self, partition: int, output: Output) -> None:
        await self.gate.wait()
        self.written.append("results")

    async def reject(self, topic: str, partition: int, item: Item[Raw], error: Exception) -> None:
        self.rejected.append(item.offset)

    async def note(self, topic: str, partition: int, item: Item[Raw], error: Exception) -> None:
        self.noted.append((topic, item.offset, str(error)))

    def took(self, samples: int, waited_s: float) -> None:
        self.frames.append((samples, waited_s))

    async def release(self, partition: int, samples: int, forecasts: int) -> None:
        self.written.append("release")
        self.released.append((samples, forecasts))
        await self.commits.wait()


def frame(step: int, series: int = 3) -> Raw:
    blocks = [encode_labels((("__name__", "m"), ("i", str(i)))) for i in range(series)]
    at = 1_700_000_000_000 + step * STEP_MS
    return Raw(
        SampleFrame(
            SeriesColumn.of(blocks),
            np.arange(series, dtype=np.uint32),
            np.full(series, at),
            np.arange(series) + float(step),
            at,
        ).encode(),
        at,
    )


def lane_of(
    journal: Journal,
    partition: Partition,
    crashes: list[BaseException],
    read_on: Callable[[Topic, bool], None] = lambda topic, on: None,
    **kw: float,
) -> Lane:
    return Lane(
        partition,
        journal,
        checkpoint_s=kw.get("checkpoint_s", 1e9),
        idle_ttl_ms=round(kw.get("idle_ttl_ms", 1e9)),
        first_checkpoint_s=kw.get("first_checkpoint_s", 1e9),
        crashed=crashes.append,
        read_on=read_on,
    )


def fresh() -> Partition:
    partition = Partition(0, plan([PIPELINE]), Budget(100))
    partition.start()
    return partition


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


def test_the_catalogue_is_confirmed_before_columns_and_columns_before_scores() -> None:
    async def scenario() -> None:
        journal, crashes = Journal(), []
        lane = lane_of(journal, fresh(), crashes)
        lane.start()
        for step in range(4):
            await lane.offer_samples(step, frame(step))
        await settle()
        assert journal.written[0] == "state"
        assert journal.written.count("ring") == 3
        assert "results" in journal.written
        assert [samples for samples, _ in journal.frames] == [3] * 4
        assert all(waited_s > 0 for _, waited_s in journal.frames)
        before = journal.written[: journal.written.index("results")]
        assert before[-1] == "ring"
        await lane.stop(flush=False)
        assert not crashes

    asyncio.run(scenario())


def test_what_waits_is_written_in_one_round_but_never_before_a_catalogue_record_in_it() -> None:
    """Rows that a catalogue record takes from their series may be in the columns before it."""

    async def scenario() -> None:
        journal, crashes = Journal(), []
        lane = lane_of(journal, fresh(), crashes)
        lane.start()
        await lane.offer_samples(0, frame(0))
        await lane.offer_samples(1, frame(1))
        await settle()
        journal.written.clear()

        journal.gate.clear()
        for step in (2, 3, 4):
            await lane.offer_samples(step, frame(step))
        await settle()
        journal.gate.set()
        await settle()
        assert journal.written == ["ring", "results"] * 2  # the first alone, and those that waited

        journal.written.clear()
        journal.gate.clear()
        for step, series in ((5, 3), (6, 3), (7, 4), (8, 4)):  # a new series with the third
            await lane.offer_samples(step, frame(step, series))
        await settle()
        journal.gate.set()
        await settle()
        assert journal.written == ["ring", "results", "ring", "results", "state", "ring", "results"]
        await lane.stop(flush=False)
        assert not crashes

    asyncio.run(scenario())


def test_offsets_are_released_only_after_the_row_state_is_confirmed() -> None:
    async def scenario() -> None:
        journal, crashes = Journal(), []
        lane = lane_of(journal, fresh(), crashes, checkpoint_s=0, first_checkpoint_s=0)
        journal.gate.clear()
        lane.start()
        await lane.offer_samples(0, frame(0))
        await settle()
        assert journal.released == []
        journal.gate.set()
        await settle()
        assert journal.written == ["state", "state", "release"]
        assert journal.released == [(1, 0)]
        await lane.stop(flush=False)
        assert not crashes

    asyncio.run(scenario())


def test_a_record_that_cannot_be_read_is_rejected_and_the_rest_goes_on() -> None:
    async def scenario() -> None:
        journal, crashes, partition = Journal(), [], fresh()
        lane = lane_of(journal, partition, crashes)
        lane.start()
        await lane.offer_samples(0, frame(0))
        await lane.offer_samples(1, Raw(b"\xff not a frame", 0))
        await lane.offer_samples(2, frame(1))
        await lane.offer_forecasts(0, Raw(b"\xff", 0))
        await settle()
        assert journal.rejected == [1, 0] or journal.rejected == [0, 1]
        assert partition.position[:2] == (3, 1)
        assert partition.counts["closed_steps"] == 3
        await lane.stop(flush=False)
        assert not crashes

    asyncio.run(scenario())


def test_stopping_writes_what_is_computed_and_a_last_checkpoint() -> None:
    async def scenario() -> None:
        journal, crashes = Journal(), []
        lane = lane_of(journal, fresh(), crashes)
        lane.start()
        for step in range(5):
            await lane.offer_samples(step, frame(step))
        await settle()
        await lane.stop(flush=True)
        assert journal.released == [(5, 0)]
        assert journal.written[-2:] == ["state", "release"]
        assert not crashes

    asyncio.run(scenario())


def test_stopping_while_the_broker_is_slow_loses_no_step_and_no_row_state() -> None:
    async def scenario() -> None:
        journal, crashes, partition = Journal(), [], fresh()
        journal.gate.clear()
        lane = lane_of(journal, partition, crashes)
        lane.start()
        for step in range(12):
            await lane.offer_samples(step, frame(step))
        await settle()
        taken = partition.position.samples
        assert 5 < taken < 12  # `feed` holds an output for which there is no room
        stopping = asyncio.create_task(lane.stop(flush=True))
        await settle()
        journal.gate.set()
        await stopping
        assert journal.released == [(taken, 0)]

        again = Partition(0, plan([PIPELINE]), Budget(100))
        for record in journal.records:
            again.restore(record.key, record.value)
        again.start()
        (block,), (known,) = again.blocks.values(), partition.blocks.values()
        rows, closed = np.arange(3), np.full(3, 1_700_000_000_000 // STEP_MS + taken - 2)
        assert block.state["closed"][:3].tolist() == closed.tolist()
        assert block.state["count"][:3].tolist() == [1, 1, 1]
        windows = [b.ring.windows(rows, closed, b.catalogue.born[:3], taken - 1) for b in (block, known)]
        assert np.isfinite(windows[0]).all()
        np.testing.assert_array_equal(*windows)
        assert not crashes

    asyncio.run(scenario())


def test_a_record_that_breaks_the_worker_is_not_passed_by_its_last_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        journal, crashes, partition = Journal(), [], fresh()
        (block,) = partition.blocks.values()
        lane = lane_of(journal, partition, crashes)
        lane.start()
        await lane.offer_samples(0, frame(0))
        await settle()

        def broken(*_: object) -> None:
            raise RuntimeError("a bug of ours")

        monkeypatch.setattr(block, "put", broken)
        await lane.offer_samples(1, frame(1))
        await settle()
        await lane.stop(flush=True)
        assert [str(e) for e in crashes] == ["a bug of ours"]
        assert journal.noted == [("samples", 1, "a bug of ours")]
        assert journal.released == []

    asyncio.run(scenario())


def test_a_forecast_that_breaks_the_worker_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        journal, crashes, partition = Journal(), [], fresh()
        lane = lane_of(journal, partition, crashes)

        def broken(*_: object) -> None:
            raise RuntimeError("a bug of ours")

        monkeypatch.setattr(ForecastFrame, "decode", broken)
        lane.start()
        await lane.offer_forecasts(3, Raw(b"x", 0))
        await settle()
        await lane.stop(flush=True)
        assert [str(e) for e in crashes] == ["a bug of ours"]
        assert journal.noted == [("forecasts", 3, "a bug of ours")]

    asyncio.run(scenario())


def test_records_that_were_set_aside_are_passed_over_in_their_turn() -> None:
    async def scenario() -> None:
        journal, crashes, partition = Journal(), [], fresh()
        lane = lane_of(journal, partition, crashes)
        poisoned = frame(1)
        poisoned.is_set_aside = True
        lane.start()
        for offset, raw in enumerate((frame(0), poisoned, frame(2))):
            await lane.offer_samples(offset, raw)
        await lane.offer_forecasts(0, Raw(b"not read", 0, is_set_aside=True))
        await settle()
        assert partition.position[:2] == (3, 1)
        # Three series: a step of the first frame, and the one that is missing.
        assert partition.counts["in"] == 6
        await lane.offer_samples(1, poisoned)  # delivered twice: it moves nothing back
        await settle()
        assert partition.position[:2] == (3, 1)
        assert journal.rejected == journal.noted == []
        await lane.stop(flush=True)
        assert journal.released == [(3, 1)]
        assert not crashes

    asyncio.run(scenario())


def test_a_broker_that_does_not_confirm_bounds_what_waits() -> None:
    async def scenario() -> None:
        journal, crashes, partition = Journal(), [], fresh()
        journal.gate.clear()
        lane = lane_of(journal, partition, crashes)
        lane.start()

        async def push() -> None:
            for step in range(200):
                await lane.offer_samples(step, frame(step))

        pushing = asyncio.create_task(push())
        for _ in range(400):
            await asyncio.sleep(0)
        assert not pushing.done()
        assert partition.position.samples < 20
        journal.gate.set()
        await asyncio.wait_for(pushing, 20)
        await until(lambda: partition.position.samples == 200)
        await lane.stop(flush=True)
        assert journal.released == [(200, 0)]
        assert not crashes

    asyncio.run(scenario())


@pytest.mark.parametrize("fails", ["state", "ring", "results"])
def test_a_failed_write_is_reported_and_releases_nothing(fails: str) -> None:
    async def scenario() -> None:
        journal, crashes = Journal(), []

        async def broken(*_: object) -> None:
            raise OSError("no broker")

        setattr(journal, fails, broken)
        lane = lane_of(journal, fresh(), crashes)
        lane.start()
        for step in range(3):
            await lane.offer_samples(step, frame(step))
        await settle()
        await lane.stop(flush=True)
        assert [str(e) for e in crashes] == ["no broker"]
        assert not journal.noted
        assert journal.released == []

    asyncio.run(scenario())


@pytest.mark.parametrize("waits_for", ["samples", "forecasts"])
def test_a_repeat_that_waits_for_one_topic_takes_any_number_of_the_other_and_has_no_more_read(
    waits_for: Topic,
) -> None:
    """Else two partitions whose records come in one line could wait for each other for ever. Nothing that
    is beyond the mark is taken before it: other forecasts would judge the steps."""

    async def scenario() -> None:
        journal, crashes = Journal(), []
        told: list[tuple[Topic, bool]] = []
        partition = fresh()
        partition.marks.append(Position(*((2, 0) if waits_for == "samples" else (0, 2)), 0))
        lane = lane_of(journal, partition, crashes, lambda topic, on: told.append((topic, on)))
        lane.start()
        async with asyncio.timeout(10):
            for i in range(200):
                if waits_for == "samples":
                    await lane.offer_forecasts(i, NO_FORECASTS)
                else:
                    await lane.offer_samples(i, frame(i))
        await settle()
        other: Topic = "forecasts" if waits_for == "samples" else "samples"
        assert told == [(other, False)]
        assert partition.position == Position(0, 0, 0)
        assert lane.is_replaying

        for i in range(2):
            if waits_for == "samples":
                await lane.offer_samples(i, frame(i))
            else:
                await lane.offer_forecasts(i, NO_FORECASTS)
        await until(lambda: told == [(other, False), (other, True)])
        await until(lambda: 200 in (partition.position.samples, partition.position.forecasts))
        assert not lane.is_replaying
        assert crashes == []
        await lane.stop(flush=False)

    asyncio.run(scenario())


def test_a_clock_that_was_set_back_holds_up_no_checkpoint() -> None:
    async def scenario() -> None:
        journal, crashes = Journal(), []
        now_s = 1_700_000_000.0
        lane = Lane(
            fresh(),
            journal,
            checkpoint_s=60,
            idle_ttl_ms=10**9,
            first_checkpoint_s=60,
            crashed=crashes.append,
            clock=lambda: now_s,
        )
        lane.start()
        await lane.offer_samples(0, frame(0))
        await settle()
        assert journal.released == []
        now_s -= 3600
        for step in (1, 2):
            await lane.offer_samples(step, frame(step))
            await settle()
        assert journal.released == [(2, 0)], "once, and the next one after a minute"
        now_s += 61
        await lane.offer_samples(3, frame(3))
        await until(lambda: journal.released == [(2, 0), (4, 0)])
        assert crashes == []
        await lane.stop(flush=False)

    asyncio.run(scenario())


def test_what_comes_behind_a_checkpoint_is_written_once_its_offsets_are_committed() -> None:
    """It was judged without the forecasts that the checkpoint gave up; a recovery that begins before the
    checkpoint has them again."""

    async def scenario() -> None:
        journal, crashes = Journal(), []
        journal.commits.clear()
        lane = lane_of(journal, fresh(), crashes, checkpoint_s=1e9, first_checkpoint_s=0)
        lane.start()
        for step in range(5):
            await lane.offer_samples(step, frame(step))
        await settle()
        assert journal.written[-1] == "release"

        journal.commits.set()
        await until(lambda: "ring" in journal.written)
        await lane.stop(flush=False)
        assert crashes == []

    asyncio.run(scenario())


@pytest.mark.parametrize("flush", [False, True])
def test_who_waits_for_room_is_let_go_when_the_partition_leaves(flush: bool) -> None:
    """It reads the records of all partitions of the topic: none of them would be read any more."""

    async def scenario() -> None:
        journal, crashes = Journal(), []
        journal.gate.clear()
        lane = lane_of(journal, fresh(), crashes)
        lane.start()

        async def read() -> None:
            for step in range(1000):
                await lane.offer_samples(step, frame(step))

        reading = asyncio.create_task(read())
        await settle()
        assert not reading.done()
        if flush:
            journal.gate.set()
        await lane.stop(flush=flush)
        await asyncio.wait_for(reading, 10)
        assert crashes == []

    asyncio.run(scenario())


def test_series_lose_their_rows_once_the_checkpoint_before_is_committed() -> None:
    """A recovery that begins before it has steps of theirs to judge."""

    async def scenario() -> None:
        journal, crashes = Journal(), []
        partition = fresh()
        lane = lane_of(
            journal, partition, crashes, checkpoint_s=0, first_checkpoint_s=1e9, idle_ttl_ms=60_000
        )
        lane.start()
        for step in range(3):
            await lane.offer_samples(step, frame(step))
        await settle()
        journal.commits.clear()
        lane._next_checkpoint = 0.0
        lane.offer_tick(1_700_000_000_000 + 3_600_000, 3)
        await settle()
        assert partition.series == 0
        assert journal.written[-2:] == ["state", "release"]

        before = len(journal.written)
        journal.commits.set()
        await until(lambda: journal.written[before:] == ["state"])
        await lane.stop(flush=False)
        assert crashes == []

    asyncio.run(scenario())


def test_a_partition_changes_between_two_checkpoints_and_all_that_waits_at_once() -> None:
    """A recovery begins before the change or behind it: no input that it repeats is on both sides."""

    async def scenario() -> tuple[list[str], list[int], list[tuple[int, int]]]:
        journal, partition = Journal(), fresh()
        lane = lane_of(journal, partition, [])
        taken: list[int] = []

        def change(partition: Partition, now_ms: int) -> Output:
            taken.append(partition.position.samples)
            return Output(catalogue=[Record(b"k", b"v")])

        await lane.offer_samples(0, frame(0))
        lane.start()
        await settle()
        journal.written.clear()
        for _ in range(3):
            lane.change(change)
        await lane.offer_samples(1, frame(0))
        await settle()
        await lane.stop(flush=False)
        return journal.written, taken, journal.released

    written, taken, released = asyncio.run(scenario())
    assert taken == [1, 1, 1]
    assert written[:2] == ["state", "release"]
    assert written[-2:] == ["state", "release"]
    assert written.count("release") == 2
    assert released == [(1, 0), (1, 0)]
