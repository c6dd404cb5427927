"""The sink role on a broker, and targets real and unreliable: every score arrives, or is accounted for."""

import asyncio
import math
from collections import defaultdict
from pathlib import Path

import pytest

from integration.rooms import Bench
from integration.sink.room import Room
from messages import named
from openanomaly.core.census import Census
from openanomaly.core.frames import ScoreFlag, ScoreFrame
from openanomaly.core.series import decode_labels
from openanomaly.errors import ConfigError
from openanomaly.pb.openanomaly.v1 import frames_pb2 as pb
from parts.victoria import VictoriaMetrics
from scores import MARKER, NOW_MS, score_frame
from targets import Target, refuse_values
from waiting import until

LOAD = [named("load", host=f"h{i}", job="node") for i in range(4)]
STEP_MS = 60_000


def steps(first: int, count: int) -> list[ScoreFrame]:
    """Frames of one step of every series each; the score of step i is i."""
    return [
        score_frame(LOAD, timestamp_ms=[NOW_MS + i * STEP_MS] * 4, score=[float(i)] * 4)
        for i in range(first, first + count)
    ]


def by_host(target: Target) -> dict[str, list[tuple[int, float]]]:
    out = defaultdict(list)
    for labels, timestamp_ms, value in target.taken:
        out[dict(labels)["host"]].append((timestamp_ms, value))
    return out


def all_of(count: int) -> list[tuple[int, float]]:
    return [(NOW_MS + i * STEP_MS, float(i)) for i in range(count)]


def test_scores_stand_in_victoriametrics_with_all_labels_at_the_steps_they_judge(
    tmp_path: Path, victoria_metrics: VictoriaMetrics
) -> None:
    async def run() -> None:
        bench = Bench(tmp_path / "broker")
        room = Room(
            bench,
            url=victoria_metrics.write_url,
            series=("anomaly_score", "yhat_upper"),
            external_labels={"dc": "x"},
        )
        end = score_frame(
            LOAD[:1], timestamp_ms=[NOW_MS + 5 * STEP_MS], flags=[MARKER], expected=[[0.0, 0.0, math.nan]]
        )
        async with bench.running(room.app, stop=[room.worker.stop]):
            frames = [*steps(0, 5), end]
            await bench.write(bench.topics.scores, [(0, None, f.encode()) for f in frames])
            await until(lambda: bench.committed(room.app, bench.topics.scores) == [6, 0])
        assert room.count("scores_total") == room.count("scores_written_total") == 21
        assert room.count("samples_written_total") == 42
        assert room.registry.get_sample_value("openanomaly_score_latency_seconds_count") == 6

    asyncio.run(run())
    found = victoria_metrics.export('{__name__=~".+"}')
    for i, labels in enumerate(LOAD):
        base = {"dc": "x", "for": "load", "pipeline": "default", "team": "infra", **dict(labels)}
        scores = found[tuple(sorted({**base, "__name__": "anomaly_score"}.items()))]
        upper = found[tuple(sorted({**base, "__name__": "yhat_upper"}.items()))]
        if i == 0:  # its episode ended: a marker for both
            assert math.isnan(scores.pop(NOW_MS + 5 * STEP_MS))
            assert math.isnan(upper.pop(NOW_MS + 5 * STEP_MS))
        assert sorted(scores.items()) == all_of(5)
        assert sorted(upper.items()) == [(t, i + 1.0) for t, _ in all_of(5)]
    assert len(found) == 8


def test_a_target_that_comes_and_goes_gets_every_score_in_order(tmp_path: Path) -> None:
    async def run() -> None:
        target = Target()
        bench = Bench(tmp_path)
        room = Room(bench, url=target.url, batch_samples=8)
        async with bench.running(room.app, stop=[room.worker.stop]):
            await bench.write(bench.topics.scores, [(0, None, f.encode()) for f in steps(0, 60)])
            await until(lambda: room.count("requests_total", code="error") > 3)
            assert not room.worker.is_up
            assert bench.committed(room.app, bench.topics.scores) == [0, 0]
            assert room.worker.status()["waiting_samples"] <= 4 * 8, "the rest waits on the broker"
            async with target.running():
                target.answer(503, "close", 429, 401, times=3)
                await until(lambda: len(target.taken) >= 40)
            async with target.running():
                await until(lambda: bench.committed(room.app, bench.topics.scores) == [60, 0])
                assert room.worker.is_up
        for host, found in by_host(target).items():
            assert sorted(set(found)) == all_of(60), host
            # A request whose answer was lost is sent again; otherwise the order is kept.
            assert [x for i, x in enumerate(found) if x not in found[:i]] == all_of(60)
        assert room.count("scores_written_total") == 240

    asyncio.run(run())


def test_a_census_is_not_for_the_target_and_does_not_wait_for_it(tmp_path: Path) -> None:
    async def run() -> None:
        target = Target()
        bench = Bench(tmp_path)
        room = Room(bench, url=target.url, batch_samples=8)
        census = ScoreFrame.of_census("default", STEP_MS, Census(4, 4, 0, 0, 4, NOW_MS, True), NOW_MS)
        async with bench.running(room.app, stop=[room.worker.stop]):
            await bench.write(bench.topics.scores, [(0, None, f.encode()) for f in steps(0, 2)])
            await until(lambda: room.count("requests_total", code="error") > 1)
            await bench.write(bench.topics.scores, [(1, None, census.encode())] * 100)
            await until(lambda: bench.committed(room.app, bench.topics.scores) == [0, 100])
            async with target.running():
                await until(lambda: bench.committed(room.app, bench.topics.scores) == [2, 100])
        assert len(target.taken) == room.count("scores_total") == 8

    asyncio.run(run())


def test_scores_that_were_not_taken_before_a_crash_are_sent_after_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with Target().running() as target:
            target.script = lambda found: None if len(target.taken) < 80 else 503
            bench = Bench(tmp_path)
            room = Room(bench, url=target.url, batch_samples=8)
            async with bench.running(room.app):  # without a graceful stop of the room
                await bench.write(
                    bench.topics.scores, [(i % 2, None, f.encode()) for i, f in enumerate(steps(0, 60))]
                )
                await until(lambda: not room.worker.is_up)
            assert 0 < sum(bench.committed(room.app, bench.topics.scores)) <= len(target.taken) // 4 < 30
            target.script = []
            bench = Bench(tmp_path)
            room = Room(bench, url=target.url)
            async with bench.running(room.app, stop=[room.worker.stop]):
                await until(lambda: sum(bench.committed(room.app, bench.topics.scores)) == 60)
        assert {host: sorted(set(found)) for host, found in by_host(target).items()} == {
            dict(labels)["host"]: all_of(60) for labels in LOAD
        }

    asyncio.run(run())


def test_what_the_target_refuses_for_good_is_set_aside_and_the_rest_arrives(tmp_path: Path) -> None:
    async def run() -> None:
        async with Target().running() as target:
            target.script = refuse_values([2.0, 3.25])
            bench = Bench(tmp_path)
            room = Room(bench, url=target.url, series=("anomaly_score", "yhat"))
            async with bench.running(room.app, stop=[room.worker.stop]):
                frames = steps(0, 5)
                await bench.write(bench.topics.scores, [(1, None, f.encode()) for f in frames])
                await until(lambda: bench.committed(room.app, bench.topics.scores) == [0, 5])
                assert room.worker.is_up
                values = (await bench.records(bench.topics.dead_letter))[0]
        letters = {x.offset: x for x in map(pb.DeadLetter.FromString, values)}
        # Step 2 has score 2 in every series; the forecast of host h3 is 3.25 at every step.
        assert sorted(letters) == [0, 1, 2, 3, 4]
        for offset, letter in letters.items():
            assert (letter.topic, letter.partition, letter.set_aside) == (bench.topics.scores.name, 1, True)
            assert "is refused" in letter.detail
            kept = ScoreFrame.decode(letter.payload)
            hosts = [dict(decode_labels(kept.series.block(r)))["host"] for r in kept.row.tolist()]
            assert hosts == (["h0", "h1", "h2", "h3"] if offset == 2 else ["h3"])
            assert set(kept.timestamp_ms.tolist()) == {NOW_MS + offset * STEP_MS}
        assert room.count("scores_total") == 20
        assert room.count("scores_written_total") == 12
        assert room.count("scores_dropped_total", reason="rejected") == 8
        # Of the refused ones h0 to h2 lost their score of step 2 only, and h3 its forecasts only.
        assert room.count("samples_written_total") == len(target.taken) == 40 - 4 - 5

    asyncio.run(run())


def test_what_comes_in_is_written_or_dropped_by_reason(tmp_path: Path) -> None:
    async def run() -> None:
        async with Target().running() as target:
            bench = Bench(tmp_path)
            room = Room(bench, url=target.url, series=("yhat",))
            frame = score_frame(
                LOAD,
                flags=[0, ScoreFlag.SILENT, 0, 0],
                timestamp_ms=[NOW_MS, NOW_MS, -5, NOW_MS],
                expected=[[1.0, 0, 2], [1.0, 0, 2], [1.0, 0, 2], [math.nan] * 3],
            )
            nothing = score_frame([])
            async with bench.running(room.app, stop=[room.worker.stop]):
                records = [frame.encode(), b"not a frame", nothing.encode(), frame.encode()]
                await bench.write(bench.topics.scores, [(0, None, value) for value in records])
                await until(lambda: bench.committed(room.app, bench.topics.scores) == [4, 0])
                (letter,) = map(pb.DeadLetter.FromString, (await bench.records(bench.topics.dead_letter))[0])
        assert (letter.offset, letter.payload) == (1, b"not a frame")
        assert room.count("rejected_total") == 1
        assert room.count("scores_total") == room.count("scores_written_total") + room.dropped == 8
        for reason in ("silent", "timestamp", "unknown"):
            assert room.count("scores_dropped_total", reason=reason) == 2
        assert len(target.taken) == room.count("scores_written_total") == 2

    asyncio.run(run())


def test_without_a_target_scores_are_counted_and_released(tmp_path: Path) -> None:
    async def run() -> None:
        bench = Bench(tmp_path)
        room = Room(bench)
        async with bench.running(room.app, stop=[room.worker.stop]):
            await bench.write(bench.topics.scores, [(0, None, f.encode()) for f in steps(0, 3)])
            await until(lambda: bench.committed(room.app, bench.topics.scores) == [3, 0])
            assert room.worker.is_up
        assert room.count("scores_dropped_total", reason="no_target") == 12

    asyncio.run(run())


def test_many_frames_share_a_request(tmp_path: Path) -> None:
    async def run() -> None:
        async with Target().running() as target:
            bench = Bench(tmp_path)
            room = Room(bench, url=target.url, batch_samples=40, batch_wait_s=30.0)
            async with bench.running(room.app, stop=[room.worker.stop]):
                await bench.write(bench.topics.scores, [(0, None, f.encode()) for f in steps(0, 25)])
                await until(lambda: len(target.taken) == 80)
                await until(lambda: room.worker.status()["waiting_samples"] == 20)
            # The stop did not wait for a full batch.
        assert target.sizes == [40, 40, 20]
        assert bench.committed(room.app, bench.topics.scores) == [25, 0]

    asyncio.run(run())


def test_settings_of_the_target_that_cannot_work_refuse_to_start(tmp_path: Path) -> None:
    async def run() -> None:
        with pytest.raises(ConfigError, match=r"sink\.bearer_token_file=/nowhere"):
            Room(Bench(tmp_path), url="http://127.0.0.1:1/", bearer_token_file="/nowhere")

    asyncio.run(run())
