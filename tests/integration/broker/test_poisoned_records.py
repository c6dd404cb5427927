"""A record that crashes its worker: three crashes, then it is set aside and everything else is done."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from dues import HORIZON, due_frame
from integration.broker.buses import PARTITIONS, Bus, running
from messages import named
from openanomaly.agents.inference import create_inference
from openanomaly.agents.sink import create_sink
from openanomaly.agents.window import WindowWorker
from openanomaly.broker.dead_letter import DeadLetters
from openanomaly.broker.faust_app import App, declare, make_app
from openanomaly.broker.tail import read_tail
from openanomaly.broker.topics import Topics, TopicSpec, topics
from openanomaly.core.frames import DueFrame, ForecastFrame, ScoreFrame
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.series import decode_labels
from openanomaly.core.services import micro_batcher
from openanomaly.core.windows.partition import Partition
from openanomaly.pb.openanomaly.v1 import frames_pb2 as pb
from openanomaly.settings import InferenceSettings, SinkSettings, WindowSettings
from openanomaly.telemetry import InferenceMetrics, SinkMetrics, WindowMetrics
from scores import NOW_MS, score_frame
from targets import Target, refuse_values
from unit.core.windows import drive
from waiting import until

MARK = 666.0
"""A value that a bug of ours does not like."""


class BugError(RuntimeError):
    pass


class Room:
    """A process with one role, and what it counts."""

    role: Any

    def __init__(self, bus: Bus) -> None:
        self.app: App = make_app(self.role, bus.config)
        self.topics: Topics = names(bus)
        self.registry = CollectorRegistry()
        self.worker = self.make()

    def make(self) -> Any:
        raise NotImplementedError

    def rejected(self, **labels: str) -> float:
        name = {"infer": "inference"}.get(self.role, self.role)
        return self.registry.get_sample_value(f"openanomaly_{name}_rejected_total", labels) or 0.0


class WindowRoom(Room):
    role = "window"

    def make(self) -> WindowWorker:
        # No checkpoint but the last one of a graceful end: what comes after it is taken again.
        return WindowWorker(
            self.app,
            WindowSettings(checkpoint_s=3600),
            [drive.pipeline()],
            self.topics,
            WindowMetrics(self.registry),
            DeadLetters(self.app, self.topics),
        )

    def position(self) -> tuple[int, ...]:
        held = self.worker.partitions.get(0)
        return (0, 0) if held is None else held.position[:2]


class InferenceRoom(Room):
    role = "infer"

    def make(self) -> Any:
        settings = InferenceSettings(max_wait_s=0.05)
        pipelines = [Pipeline(name="default")]
        return create_inference(self.app, settings, pipelines, self.topics, InferenceMetrics(self.registry))


class SinkRoom(Room):
    role = "sink"

    def __init__(self, bus: Bus, target: Target) -> None:
        self._url = target.url
        super().__init__(bus)

    def make(self) -> Any:
        settings = SinkSettings(url=self._url, batch_wait_s=0.0)
        letters = DeadLetters(self.app, self.topics)
        return create_sink(self.app, settings, self.topics, SinkMetrics(self.registry), letters)


def names(bus: Bus) -> Topics:
    return topics(bus.config.topic_prefix, PARTITIONS)


async def records(bus: Bus, spec: TopicSpec) -> list[bytes]:
    """What partition 0 of a topic holds."""
    app = make_app("ingest", bus.config)
    declare(app, spec)
    found: list[bytes] = []
    async with running(app):
        await read_tail(app, spec.name, 0, 0, 10**6, found.append)
    return found


async def letters(bus: Bus) -> list[pb.DeadLetter]:
    return [pb.DeadLetter.FromString(x) for x in await records(bus, names(bus).dead_letter)]


async def crash(room: Room) -> None:
    with pytest.raises((BugError, ExceptionGroup)) as caught:
        async with running(room.app) as watch:
            await asyncio.wait_for(watch, 30)
    assert "a bug of ours" in repr(caught.value)


async def end(room: Room, is_done: Callable[[], Any]) -> None:
    """Run until `is_done`, then end gracefully."""
    async with running(room.app):
        await until(is_done)
        await room.worker.stop()


async def committed(bus: Bus, room: Room, spec: TopicSpec) -> int:
    return (await bus.committed(room.app.conf.id, spec.name))[0]


async def check_letters(bus: Bus, spec: TopicSpec, offset: int, value: bytes | None) -> None:
    """Two notes and a last one for this offset, each with all that a person needs."""
    found = [x for x in await letters(bus) if x.offset == offset]
    assert [x.set_aside for x in found] == [False, False, True]
    for letter in found:
        assert (letter.topic, letter.partition, letter.reason) == (spec.name, 0, "crash")
        assert letter.detail.startswith("  +" if "ExceptionGroup" in letter.detail else "Traceback")
        assert "a bug of ours" in letter.detail
        assert value is None or letter.payload == value


# -- windows ---------------------------------------------------------------------------------------

STEPS = 40
FIRST, POISONED = 10, 25


def samples(step: int) -> bytes:
    at = NOW_MS + step * 10_000
    value = MARK if step == POISONED else step % 7
    return drive.frame([("a", at, value), ("b", at + 1, step % 5)], at).encode()


async def scores(bus: Bus) -> dict[tuple[Any, int], set[bytes]]:
    """By series and step, all that was said of it."""
    out = defaultdict(set)
    for value in await records(bus, names(bus).scores):
        frame = ScoreFrame.decode(value)
        for i, row in enumerate(frame.row.tolist()):
            said = np.array([frame.score[i], frame.value[i], *frame.expected[i]], np.float64).tobytes()
            labels = decode_labels(frame.series.block(row))
            out[labels, int(frame.timestamp_ms[i])].add(said)
    return dict(out)


async def without_the_record(bus: Bus) -> dict[tuple[Any, int], set[bytes]]:
    """The scores of a run in which nobody could read the record that is poisoned in the other."""
    spec = names(bus).samples
    values = [b"not a frame" if i == POISONED else samples(i) for i in range(STEPS)]
    await bus.write(spec, [(0, None, x) for x in values])
    room = WindowRoom(bus)
    await end(room, lambda: room.position()[0] == STEPS)
    return await scores(bus)


def break_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    put = Partition.put

    def broken(self: Partition, frame: Any, *args: Any) -> Any:
        out = put(self, frame, *args)
        if MARK in frame.value:
            raise BugError("a bug of ours")  # with half of the work done
        return out

    monkeypatch.setattr(Partition, "put", broken)


def test_samples_that_crash_a_window_worker_are_set_aside_and_all_others_are_scored(
    durable_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        bus, spec = durable_bus, names(durable_bus).samples
        other = replace(bus.config, topic_prefix=f"{bus.config.topic_prefix}x")
        expected = await without_the_record(replace(bus, config=other))
        break_windows(monkeypatch)

        await bus.write(spec, [(0, None, samples(i)) for i in range(FIRST)])
        first = WindowRoom(bus)
        await end(first, lambda: first.position()[0] == FIRST)
        await bus.write(spec, [(0, None, samples(i)) for i in range(FIRST, STEPS)])
        for _ in range(3):
            await crash(WindowRoom(bus))
        assert await committed(bus, first, spec) == FIRST
        await check_letters(bus, spec, POISONED, samples(POISONED))

        # Ends without a checkpoint: the next one repeats the run, and passes over the record again.
        second = WindowRoom(bus)
        async with running(second.app):
            await until(lambda: second.position()[0] == STEPS)
        assert second.rejected(topic="samples") == 1
        last = WindowRoom(bus)
        await end(last, lambda: last.position()[0] == STEPS)
        assert last.rejected(topic="samples") == 1
        assert await committed(bus, last, spec) == STEPS
        assert len(await letters(bus)) == 3

        found = await scores(bus)
        assert {key for key, said in found.items() if len(said) != 1} == set()
        # The step that is open at the end closes by the clock of the one or the other worker.
        assert found.keys() >= {key for key in expected if key[1] <= NOW_MS + (STEPS - 2) * 10_000}
        assert {key: expected[key] for key in found if key in expected} == {
            key: said for key, said in found.items() if key in expected
        }
        assert len(found) > 50

    asyncio.run(go())


def test_a_forecast_that_crashes_a_window_worker_is_set_aside(
    embedded_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        bus, spec = embedded_bus, names(embedded_bus).forecasts
        levels = np.array([0.1, 0.5, 0.9], np.float32)
        values = [
            ForecastFrame.pack(
                due_frame(3 * i, partition=0), levels, np.zeros((3, HORIZON, 3), np.float32)
            ).encode()
            for i in range(5)
        ]
        forecast = Partition.forecast

        def broken(self: Partition, frame: ForecastFrame, *args: Any) -> int:
            if 6 in frame.row:
                raise BugError("a bug of ours")
            return forecast(self, frame, *args)

        monkeypatch.setattr(Partition, "forecast", broken)
        await bus.write(spec, [(0, None, x) for x in values])
        for _ in range(3):
            await crash(WindowRoom(bus))
        await check_letters(bus, spec, 2, values[2])
        room = WindowRoom(bus)
        await end(room, lambda: room.position()[1] == 5)
        assert room.rejected(topic="forecasts") == 1

    asyncio.run(go())


# -- inference -------------------------------------------------------------------------------------


def break_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    decode = DueFrame.decode

    def broken(value: bytes) -> DueFrame:
        frame = decode(value)
        if 12 in frame.row:
            raise BugError("a bug of ours")
        return frame

    monkeypatch.setattr(DueFrame, "decode", broken)


def break_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = micro_batcher.stack

    def broken(parts: Any, length: int) -> Any:
        if any(12 in part.request.frame.row for part in parts):
            raise BugError("a bug of ours")
        return stack(parts, length)

    monkeypatch.setattr(micro_batcher, "stack", broken)


def break_packing(monkeypatch: pytest.MonkeyPatch) -> None:
    pack = ForecastFrame.pack

    def broken(due: DueFrame, *args: Any) -> ForecastFrame:
        if 12 in due.row:
            raise BugError("a bug of ours")
        return pack(due, *args)

    monkeypatch.setattr(ForecastFrame, "pack", broken)


@pytest.mark.parametrize("breaks", [break_decoding, break_batches, break_packing])
def test_contexts_that_crash_inference_are_set_aside_and_all_others_are_forecast(
    embedded_bus: Bus, monkeypatch: pytest.MonkeyPatch, breaks: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """Also where the record crashes a batch of many: those beside it cost one more try, and no forecast."""

    async def go() -> None:
        bus, due = embedded_bus, names(embedded_bus).due
        values = [due_frame(3 * i, partition=0).encode() for i in range(9)]
        await bus.write(due, [(0, None, x) for x in values])
        breaks(monkeypatch)
        for _ in range(3):
            await crash(InferenceRoom(bus))
        await check_letters(bus, due, 4, values[4])
        room = InferenceRoom(bus)
        async with running(room.app), asyncio.timeout(20):
            while await committed(bus, room, due) != 9:  # noqa: ASYNC110 (nothing tells)
                await asyncio.sleep(0.05)
        assert room.rejected() == 1
        assert sum(x.set_aside for x in await letters(bus)) == 1
        rows: list[int] = []
        for value in await records(bus, names(bus).forecasts):
            rows += ForecastFrame.decode(value).row.tolist()
        assert set(rows) == set(range(27)) - {12, 13, 14}

    asyncio.run(go())


# -- sink ------------------------------------------------------------------------------------------


def test_scores_that_crash_the_sink_are_set_aside_and_all_others_arrive(
    durable_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        bus, spec = durable_bus, names(durable_bus).scores
        series = [named("load", host=f"h{i}") for i in range(2)]
        values = [
            score_frame(
                series, timestamp_ms=[NOW_MS + i * 60_000] * 2, score=[MARK if i == 3 else float(i)] * 2
            ).encode()
            for i in range(8)
        ]
        await bus.write(spec, [(0, None, x) for x in values])
        break_encoding(monkeypatch)
        async with Target().running() as target:
            for _ in range(3):
                await crash(SinkRoom(bus, target))
            await check_letters(bus, spec, 3, values[3])
            room = SinkRoom(bus, target)
            await end(room, lambda: len({x[1] for x in target.taken}) == 7)
            assert room.rejected() == 1
            assert await committed(bus, room, spec) == 8
            wanted = {(x, NOW_MS + i * 60_000, float(i)) for x in ("h0", "h1") for i in range(8) if i != 3}
            assert {(dict(x)["host"], at, score) for x, at, score in target.taken} == wanted
            assert len(await letters(bus)) == 3

    asyncio.run(go())


def test_scores_that_crash_the_sink_after_a_refusal_are_set_aside_and_all_others_arrive(
    embedded_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written with them before is written again after each crash: nothing tells that it was."""

    async def go() -> None:
        bus, spec = embedded_bus, names(embedded_bus).scores
        values = [
            score_frame([named("load", host=f"h{i}")], score=[MARK if i == 3 else float(i)]).encode()
            for i in range(8)
        ]
        await bus.write(spec, [(0, None, x) for x in values])

        def broken(self: ScoreFrame, rows: Any) -> ScoreFrame:
            raise BugError("a bug of ours")

        monkeypatch.setattr(ScoreFrame, "take", broken)
        async with Target(script=refuse_values([MARK])).running() as target:
            for _ in range(3):
                await crash(SinkRoom(bus, target))
            await check_letters(bus, spec, 3, None)
            room = SinkRoom(bus, target)
            async with running(room.app), asyncio.timeout(20):
                while await committed(bus, room, spec) != 8:  # noqa: ASYNC110 (nothing tells)
                    await asyncio.sleep(0.05)
            assert {dict(x)["host"] for x, _, _ in target.taken} == {f"h{i}" for i in range(8) if i != 3}
            assert len(await letters(bus)) == 3

    asyncio.run(go())


def break_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    decode = ScoreFrame.decode

    def broken(value: bytes) -> ScoreFrame:
        frame = decode(value)
        if MARK in frame.score:
            raise BugError("a bug of ours")
        return frame

    monkeypatch.setattr(ScoreFrame, "decode", broken)
