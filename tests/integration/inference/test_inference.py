"""The inference role on a broker: every due context has its forecast, however often it is stopped."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from dues import HORIZON, MEMORY, Echo, OnDevice, due_frame, spoiled_by
from integration.rooms import Bench
from openanomaly.agents.inference import InferenceWorker, create_inference
from openanomaly.broker.dead_letter import DeadLetters
from openanomaly.broker.faust_app import App
from openanomaly.broker.topics import MAX_RECORD_BYTES
from openanomaly.core.frames import ForecastFrame
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.ports.model_engine import ModelEngine
from openanomaly.core.scoring.levels import LEVELS
from openanomaly.pb.openanomaly.v1 import frames_pb2 as pb
from openanomaly.settings import InferenceSettings
from openanomaly.telemetry import InferenceMetrics
from waiting import until


class Room:
    def __init__(self, bench: Bench, engine: ModelEngine | None = None, **settings: object) -> None:
        self.app: App = bench.app("infer")
        self.registry = CollectorRegistry()
        made = InferenceSettings(**settings)  # type: ignore[arg-type]
        metrics = InferenceMetrics(self.registry)
        if engine is None:
            pipelines = [Pipeline(name="default")]
            self.worker = create_inference(self.app, made, pipelines, bench.topics, metrics)
        else:
            letters = DeadLetters(self.app, bench.topics)
            self.worker = InferenceWorker(self.app, made, {"auto": engine}, bench.topics, metrics, letters)

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"openanomaly_inference_{name}", labels) or 0.0


async def forecasts(bench: Bench, partition: int = 1) -> dict[int, list[ForecastFrame]]:
    """Forecast frames of a partition by the rows they are for."""
    out: dict[int, list[ForecastFrame]] = {}
    for value in (await bench.records(bench.topics.forecasts))[partition]:
        frame = ForecastFrame.decode(value)
        for row in frame.row.tolist():
            out.setdefault(row, []).append(frame)
    return out


def test_every_context_has_a_forecast_in_the_partition_it_came_from(tmp_path: Path) -> None:
    async def run() -> None:
        bench = Bench(tmp_path)
        room = Room(bench, max_batch=4, max_wait_s=0.01)
        async with bench.running(room.app, stop=[room.worker.stop]):
            frames = [due_frame(3 * i) for i in range(10)]
            await bench.write(bench.topics.due, [(i % 2, None, f.encode()) for i, f in enumerate(frames)])
            await until(lambda: bench.committed(room.app, bench.topics.due) == [5, 5])
            assert (await bench.records(bench.topics.forecasts))[0] == []
            found = await forecasts(bench)
        assert sorted(found) == list(range(30))
        for row, (frame,) in found.items():
            at = frame.row.tolist().index(row)
            assert (frame.block, frame.forecaster) == (77, 5)
            assert (frame.generation[at], frame.origin[at]) == (row + 100, row + 1000)
            assert frame.level.tolist() == np.float32(LEVELS).tolist()
            quantile = frame.quantile[at] * frame.scale[at] + frame.center[at]
            assert quantile.shape == (len(LEVELS), HORIZON)
            assert quantile == pytest.approx(row, abs=1e-3)

    asyncio.run(run())


def test_an_engine_on_a_gpu_is_asked_for_its_memory_at_each_scrape(tmp_path: Path) -> None:
    room = Room(Bench(tmp_path), OnDevice("cuda:0"))
    assert room.count("device_memory_reserved_bytes", device="cuda:0") == MEMORY.reserved
    assert room.count("engine_info", model="auto", device="cuda:0") == 1
    assert room.worker.status()["devices"] == {"auto": "cuda:0"}


def test_what_comes_in_is_forecast_or_dropped_by_reason(tmp_path: Path) -> None:
    async def run() -> None:
        bench = Bench(tmp_path)
        room = Room(bench, max_wait_s=0.01)
        async with bench.running(room.app, stop=[room.worker.stop]):
            frames = [
                due_frame(0),
                due_frame(3, useful_until_ms=1),
                due_frame(6, model="gone"),
                due_frame(9, rows=0),
                due_frame(12),
            ]
            await bench.write(bench.topics.due, [(0, None, f.encode()) for f in frames])
            await until(
                lambda: room.count("contexts_total") == 12 and not room.worker.status()["waiting_rows"]
            )
        assert room.count("forecasts_total") == 6
        assert room.count("dropped_total", reason="stale") == 3
        assert room.count("dropped_total", reason="unknown_model") == 3
        assert bench.committed(room.app, bench.topics.due) == [5, 0]

    asyncio.run(run())


def test_rows_that_an_engine_fails_on_cost_their_neighbours_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        bench = Bench(tmp_path)
        room = Room(bench, Echo(spoiled_by({4.0, 9.0, 10.0, 11.0})), max_wait_s=0.01)
        async with bench.running(room.app, stop=[room.worker.stop]):
            records = [(0, None, due_frame(3 * i).encode()) for i in range(5)]
            await bench.write(bench.topics.due, records)
            await until(lambda: bench.committed(room.app, bench.topics.due) == [5, 0])
            found = await forecasts(bench)
        assert sorted(found) == [0, 1, 2, 3, 5, 6, 7, 8, 12, 13, 14]
        for row, (frame,) in found.items():
            at = frame.row.tolist().index(row)
            assert (frame.generation[at], frame.origin[at]) == (row + 100, row + 1000)
            assert frame.center[at] == row
        assert room.count("dropped_total", reason="engine") == 4

    asyncio.run(run())


def test_forecasts_longer_than_their_contexts_still_fit_into_records(tmp_path: Path) -> None:
    async def run() -> None:
        bench = Bench(tmp_path)
        room = Room(bench, Echo(), max_wait_s=0.01)
        async with bench.running(room.app, stop=[room.worker.stop]):
            # 0.4 MB of contexts, 15 MB of forecasts.
            await bench.write(bench.topics.due, [(0, None, due_frame(0, 1500, horizon=1024).encode())])
            await until(lambda: bench.committed(room.app, bench.topics.due) == [1, 0])
            sizes = list(map(len, (await bench.records(bench.topics.forecasts))[1]))
            found = await forecasts(bench)
        assert max(sizes) < MAX_RECORD_BYTES / 2
        assert sorted(found) == list(range(1500))
        assert all(len(frames) == 1 for frames in found.values())

    asyncio.run(run())


def test_a_record_that_cannot_be_used_is_set_aside_and_the_next_one_is_served(tmp_path: Path) -> None:
    async def run() -> None:
        bench = Bench(tmp_path)
        room = Room(bench, max_wait_s=0.01)
        bad = [b"not a frame", due_frame(0, partition=2).encode()]
        async with bench.running(room.app, stop=[room.worker.stop]):
            await bench.write(bench.topics.due, [(0, None, value) for value in [*bad, due_frame(3).encode()]])
            await until(lambda: room.count("forecasts_total") == 3)
            letters = [
                pb.DeadLetter.FromString(value)
                for value in (await bench.records(bench.topics.dead_letter))[0]
            ]
        assert [(x.topic, x.partition, x.offset, x.payload) for x in letters] == [
            (bench.topics.due.name, 0, i, value) for i, value in enumerate(bad)
        ]
        assert "partition 2 of 2" in letters[1].detail
        assert room.count("rejected_total") == 2
        assert bench.committed(room.app, bench.topics.due) == [3, 0]

    asyncio.run(run())


def test_contexts_beyond_the_limit_wait_on_the_broker_and_are_all_forecast(tmp_path: Path) -> None:
    async def run() -> None:
        bench = Bench(tmp_path)
        room = Room(bench, max_batch=4, max_wait_s=0.0, queue_limit=6)
        most = 0
        async with bench.running(room.app, stop=[room.worker.stop]):
            await bench.write(bench.topics.due, [(0, None, due_frame(3 * i).encode()) for i in range(100)])

            def is_done() -> bool:
                nonlocal most
                most = max(most, room.worker.status()["waiting_rows"])
                return bench.committed(room.app, bench.topics.due) == [100, 0]

            await until(is_done)
            assert sorted(await forecasts(bench)) == list(range(300))
        assert most <= 6

    asyncio.run(run())


def test_what_was_not_answered_before_a_stop_is_forecast_after_the_restart(tmp_path: Path) -> None:
    async def run() -> None:
        bench = Bench(tmp_path)
        room = Room(bench, max_batch=4, max_wait_s=0.0)
        async with bench.running(room.app):  # without a graceful stop of the room
            await bench.write(
                bench.topics.due, [(i % 2, None, due_frame(3 * i).encode()) for i in range(400)]
            )
            await until(lambda: room.count("forecasts_total") >= 40)
        served = sum(bench.committed(room.app, bench.topics.due))
        assert 0 < served < 400

        bench = Bench(tmp_path)
        room = Room(bench)
        async with bench.running(room.app, stop=[room.worker.stop]):
            await until(lambda: sum(bench.committed(room.app, bench.topics.due)) == 400)
            found = await forecasts(bench)
        assert sorted(found) == list(range(1200))

    asyncio.run(run())
