"""Targets that are real servers, in the situations that real servers get into."""

import asyncio
import json
import time
import urllib.parse
from pathlib import Path

import pytest

from integration.rooms import Bench
from integration.sink.room import Room
from messages import named
from openanomaly.core.frames import ScoreFrame
from openanomaly.pb.openanomaly.v1 import frames_pb2 as pb
from parts.part import get
from parts.prometheus import prometheus
from parts.victoria import VictoriaMetrics
from parts.victoria import victoria_metrics as running_victoria_metrics
from scores import MARKER, score_frame
from waiting import until

LOAD = [named("load", host="a"), named("load", host="b")]
STEP_MS = 1000


def steps(start_ms: int, first: int, last: int) -> list[ScoreFrame]:
    return [
        score_frame(LOAD, timestamp_ms=[start_ms + i * STEP_MS] * 2, score=[i / 64, 1 + i / 64])
        for i in range(first, last)
    ]


def test_victoriametrics_is_stopped_and_its_password_changed_and_it_gets_every_score(tmp_path: Path) -> None:
    start_ms = 1_700_000_000_000
    password = tmp_path / "password"
    password.write_text("one")

    async def run() -> None:
        bench = Bench(tmp_path / "broker")
        flags = ["-httpAuth.username=scores", "-httpAuth.password=one"]
        with running_victoria_metrics(tmp_path, *flags) as store:
            room = Room(bench, url=store.write_url, username="scores", password_file=str(password))
            async with bench.running(room.app, stop=[room.worker.stop]):

                async def write(first: int, last: int) -> None:
                    rows = [(0, None, f.encode()) for f in steps(start_ms, first, last)]
                    await bench.write(bench.topics.scores, rows)

                await write(0, 20)
                await until(lambda: bench.committed(room.app, bench.topics.scores)[0] == 20)
                await asyncio.to_thread(store.process.stop)
                await write(20, 40)
                await until(lambda: room.count("requests_total", code="error") > 2)
                store.process.command = [
                    word.replace("password=one", "password=two") for word in store.process.command
                ]
                store.process.start()
                await until(lambda: room.count("requests_total", code="401") > 2)
                assert not room.worker.is_up
                assert bench.committed(room.app, bench.topics.scores)[0] == 20
                password.write_text("two")
                await write(40, 60)
                await until(lambda: bench.committed(room.app, bench.topics.scores)[0] == 60)
                assert room.worker.is_up
        assert room.count("scores_written_total") == 120
        # Read it without a password.
        with running_victoria_metrics(tmp_path) as store:
            found = {
                dict(labels)["host"]: samples for labels, samples in store.export('{for="load"}').items()
            }
        for host, base in (("a", 0.0), ("b", 1.0)):
            assert found[host] == {start_ms + i * STEP_MS: base + i / 64 for i in range(60)}

    asyncio.run(run())


def test_prometheus_as_a_target_refuses_what_is_too_old_and_has_the_rest(tmp_path: Path) -> None:
    """It takes no sample older than the last of its series, and answers 400 for the whole request."""
    start_ms = int(time.time()) * 1000 - 60_000

    async def run() -> None:
        bench = Bench(tmp_path / "broker")
        with prometheus(tmp_path, {}, receives=True) as store:
            room = Room(bench, url=f"{store.url}/api/v1/write")
            async with bench.running(room.app, stop=[room.worker.stop]):
                old = score_frame(LOAD[1:], timestamp_ms=[start_ms - 5 * STEP_MS], score=[0.5])
                end = score_frame(LOAD[:1], timestamp_ms=[start_ms + 30 * STEP_MS], flags=[MARKER])
                frames = [*steps(start_ms, 0, 10), old, *steps(start_ms, 10, 30), end]
                await bench.write(bench.topics.scores, [(0, None, f.encode()) for f in frames])
                await until(lambda: bench.committed(room.app, bench.topics.scores)[0] == len(frames))
                assert room.worker.is_up
                letters = [
                    pb.DeadLetter.FromString(value)
                    for value in (await bench.records(bench.topics.dead_letter))[0]
                ]
            found = store.query_range_vector("anomaly_score", start_ms / 1000 + 60)
            at = urllib.parse.urlencode({"query": "anomaly_score", "time": start_ms / 1000 + 31})
            now = json.loads(get(f"{store.url}/api/v1/query?{at}"))["data"]["result"]
            (ended,) = [row for row in found if row["metric"]["host"] == "a"]
        assert [x.offset for x in letters] == [10]
        assert "out of order" in letters[0].detail
        assert room.count("scores_total") == 62
        assert room.count("scores_dropped_total", reason="rejected") == 1
        for row in found:
            base = 0.0 if row is ended else 1.0
            assert [(round(t * 1000), float(v)) for t, v in row["values"]] == [
                (start_ms + i * STEP_MS, base + i / 64) for i in range(30)
            ]
            assert row["metric"]["for"] == "load"
        # The marker at step 30 ended one of them there; without it both would stand for minutes.
        assert [row["metric"]["host"] for row in now] == ["b"]

    asyncio.run(run())


@pytest.mark.parametrize("path", ["/wrong", "/api/v1/query"])
def test_behind_a_wrong_path_scores_wait_and_none_is_given_up(
    tmp_path: Path, victoria_metrics: VictoriaMetrics, path: str
) -> None:
    """It answers 400 there, to everything."""

    async def run() -> None:
        bench = Bench(tmp_path / "broker")
        room = Room(bench, url=victoria_metrics.url + path)
        async with bench.running(room.app, stop=[room.worker.stop]):
            rows = [(0, None, f.encode()) for f in steps(1_700_000_000_000, 0, 3)]
            await bench.write(bench.topics.scores, rows)
            await until(lambda: not room.worker.is_up)
            await asyncio.sleep(0.1)
            assert room.count("requests_total", code="400") + room.count("requests_total", code="422") > 0
            assert bench.committed(room.app, bench.topics.scores) == [0, 0]
            assert await bench.records(bench.topics.dead_letter) == [[]]
        assert room.count("scores_written_total") == 0

    asyncio.run(run())
