"""What of a request reaches the broker, and what is only counted."""

import asyncio
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from messages import COUNTER, GAUGE, HISTOGRAM, V1_HEADERS, Series, named, packed, v1
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.series import partition_of
from openanomaly.core.series_column import SeriesKind
from openanomaly.core.stale import STALE, is_stale
from receiving import PARTITIONS, now_ms, site, until

VERSIONS = (1, 2)
UP = named("up", instance="a:1", job="node")

SPARSE = {
    "count_int": 23,
    "sum": 1.0,
    "positive_spans": [(0, 3), (2, 2)],
    "positive_deltas": [1, 2, 1, 3, 1],
}
HISTOGRAMS: dict[str, tuple[dict[str, object], bool]] = {
    "sparse": (SPARSE, True),
    "with negative and zero buckets": (
        {
            **SPARSE,
            "count_int": 27,
            "zero_count_int": 1,
            "negative_spans": [(0, 2)],
            "negative_deltas": [1, 1],
        },
        True,
    ),
    "custom buckets": (
        {
            "schema": -53,
            "count_int": 30,
            "custom_values": [0.1, 0.5, 1.0, 2.5, 5.0, 10.0],
            "positive_spans": [(0, 6)],
            "positive_deltas": [2, 1, 2, 3, -1, -2],
        },
        True,
    ),
    "of floats": ({"count_float": 3.0, "positive_spans": [(0, 2)], "positive_counts": [1.0, 2.0]}, True),
    "empty": ({"count_int": 0}, True),
    "with a wrong count": ({**SPARSE, "count_int": 99}, False),
    "with too few buckets": ({**SPARSE, "positive_spans": [(0, 9)]}, False),
    "with a negative bucket": ({"count_int": 0, "positive_spans": [(0, 1)], "positive_deltas": [-1]}, False),
    "with an unknown schema": ({**SPARSE, "schema": 99}, False),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("fields", "is_good"), HISTOGRAMS.values(), ids=HISTOGRAMS.keys())
def test_native_histograms_are_checked_and_counted(
    version: int, fields: dict[str, object], is_good: bool, tmp_path: Path
) -> None:
    async def run() -> None:
        async with site(tmp_path) as s:
            answer = await s.write(
                version,
                Series(named("h"), histograms=[{**fields, "timestamp": now_ms()}]),
                Series(UP, [(now_ms(), 1.0)]),
            )
            assert answer.status == (204 if is_good else 400)
            assert answer.written == (None if version == 1 else (1, int(is_good), 0))
            assert list(await s.samples()) == [UP]
            assert s.count("ignored_total", kind="histograms") == is_good
            if not is_good:
                assert "__name__='h'" in answer.text

    asyncio.run(run())


@pytest.mark.parametrize("version", VERSIONS)
def test_exemplars_are_counted(version: int, tmp_path: Path) -> None:
    async def run() -> None:
        now = now_ms()
        async with site(tmp_path) as s:
            answer = await s.write(
                version,
                Series(UP, [(now, 1.0)], exemplars=[(("trace_id", "测试"),), ()]),
                Series(named("orphan"), exemplars=[(("trace_id", "a"),)]),
                Series(named("h"), exemplars=[()], histograms=[{**SPARSE, "timestamp": now}]),
            )
            assert answer.status == 204
            assert answer.written == (None if version == 1 else (1, 1, 4))
            assert await s.samples() == {UP: [(now, 1.0)]}
            assert s.count("ignored_total", kind="exemplars") == 4

    asyncio.run(run())


@pytest.mark.parametrize("version", VERSIONS)
def test_everything_of_a_refused_series_counts_as_not_written(version: int, tmp_path: Path) -> None:
    async def run() -> None:
        nameless = (("job", "x"),)
        histogram = {**SPARSE, "timestamp": now_ms()}
        async with site(tmp_path) as s:
            answer = await s.write(version, Series(nameless, [(now_ms(), 1.0)], [()], [histogram]))
            assert answer.status == 400
            assert answer.written == (None if version == 1 else (0, 0, 0))
            assert s.count("ignored_total", kind="histograms") == 0
            assert s.count("samples_total") == 1

    asyncio.run(run())


def test_metadata_of_1_0_say_what_later_samples_are(tmp_path: Path) -> None:
    async def run() -> None:
        names = ("requests", "requests_total", "temperature", "latency_sum", "latency", "unknown")
        series = [Series(named(name), [(now_ms(), 1.0)]) for name in names]
        metadata = [("requests", COUNTER), ("temperature", GAUGE), ("latency", HISTOGRAM), ("unknown", 99)]
        async with site(tmp_path) as s:
            assert (await s.write(1, *series)).status == 204
            assert set((await s.kinds()).values()) == {SeriesKind.UNKNOWN}
            # Prometheus sends metadata in requests of their own.
            assert (await s.post(packed(v1([], metadata)), V1_HEADERS)).status == 204
            assert (await s.write(1, *series)).status == 204
            assert await s.kinds() == {
                "requests": SeriesKind.COUNTER,
                "requests_total": SeriesKind.COUNTER,
                "temperature": SeriesKind.GAUGE,
                "latency": SeriesKind.HISTOGRAM,
                "latency_sum": SeriesKind.HISTOGRAM,
                "unknown": SeriesKind.UNKNOWN,
            }
            assert s.count("ignored_total", kind="metadata") == 4

    asyncio.run(run())


def test_metadata_of_2_0_come_with_the_series(tmp_path: Path) -> None:
    async def run() -> None:
        async with site(tmp_path) as s:
            answer = await s.write(
                2,
                Series(named("a"), [(now_ms(), 1.0)], kind=COUNTER),
                Series(named("b"), [(now_ms(), 1.0), (now_ms() + 1, 1.0)], kind=GAUGE),
                Series(named("c"), [(now_ms(), 1.0)]),
                Series(named("no_samples"), kind=COUNTER),
            )
            assert (answer.status, answer.written) == (204, (4, 0, 0))
            kinds = {"a": SeriesKind.COUNTER, "b": SeriesKind.GAUGE, "c": SeriesKind.UNKNOWN}
            assert await s.kinds() == kinds

    asyncio.run(run())


def test_start_timestamps_of_2_0_are_read_over(tmp_path: Path) -> None:
    async def run() -> None:
        now = now_ms()
        async with site(tmp_path) as s:
            answer = await s.write(2, Series(UP, [(now, 1.5)], start_ms=now - 3_600_000))
            assert (answer.status, answer.written) == (204, (1, 0, 0))
            assert await s.samples() == {UP: [(now, 1.5)]}

    asyncio.run(run())


@pytest.mark.parametrize("version", VERSIONS)
def test_staleness_markers_keep_their_bits(version: int, tmp_path: Path) -> None:
    async def run() -> None:
        async with site(tmp_path) as s:
            assert (await s.write(version, Series(UP, [(now_ms(), float(STALE))]))).status == 204
            [(_, frame, _)] = await s.frames()
            assert is_stale(frame.value).all()

    asyncio.run(run())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_series_is_the_same_whatever_the_order_of_its_labels(version: int, tmp_path: Path) -> None:
    async def run() -> None:
        now = now_ms()
        async with site(tmp_path) as s:
            shuffled = (UP[1], ("empty", ""), UP[2], UP[0])
            await s.write(version, Series(UP, [(now, 1.0)]), Series(shuffled, [(now + 1, 2.0)]))
            await s.write(3 - version, Series(shuffled, [(now + 2, 3.0)]))
            assert await s.samples() == {UP: [(now, 1.0), (now + 1, 2.0), (now + 2, 3.0)]}
            [(_, first, _), _] = await s.frames()
            assert len(first.series) == 1

    asyncio.run(run())


def test_frames_lie_in_the_partition_of_their_series(tmp_path: Path) -> None:
    async def run() -> None:
        async with site(tmp_path) as s:
            await s.write(1, *(Series(named("m", i=str(i)), [(now_ms(), float(i))]) for i in range(200)))
            frames = await s.frames()
            assert {partition for partition, _, _ in frames} == set(range(PARTITIONS))
            for partition, frame, _ in frames:
                assert (partition_of(frame.series.ids, PARTITIONS) == partition).all()

    asyncio.run(run())


def test_requests_of_one_moment_share_frames(tmp_path: Path) -> None:
    async def run() -> None:
        now = now_ms()
        async with site(tmp_path, coalesce_ms=200.0) as s:
            requests = [
                [Series(named("m", i=str(i % 60)), [(now + n, float(n))]) for i in range(n, n + 40)]
                for n in range(10)
            ]
            answers = await asyncio.gather(*(s.write(1 + n % 2, *r) for n, r in enumerate(requests)))
            assert [a.status for a in answers] == [204] * 10
            frames = await s.frames()
            assert len(frames) == PARTITIONS
            for _, frame, _ in frames:
                assert len(np.unique(frame.series.ids, axis=0)) == len(frame.series)
            expected = Counter((series.labels, series.samples[0]) for r in requests for series in r)
            got = Counter((labels, one) for labels, found in (await s.samples()).items() for one in found)
            assert got == expected
            assert s.count("frame_bytes_count") == PARTITIONS

    asyncio.run(run())


@pytest.mark.parametrize("version", VERSIONS)
def test_frames_stay_below_their_limit(version: int, tmp_path: Path) -> None:
    async def run() -> None:
        now = now_ms()
        series = [
            Series(named("m", i=str(i), pad="x" * 300), [(now + t, float(t)) for t in range(i)])
            for i in range(100)
        ]
        async with site(tmp_path, frame_limit_bytes=4096) as s:
            assert (await s.write(version, *series)).status == 204
            assert await s.samples() == {x.labels: list(x.samples) for x in series if x.samples}
            sizes = [size for _, _, size in await s.frames()]
            assert max(sizes) <= 4096
            assert len(sizes) > 40

    asyncio.run(run())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_series_too_large_for_a_frame_is_refused(version: int, tmp_path: Path) -> None:
    async def run() -> None:
        wide = named("m", pad="x" * 3900)
        async with site(tmp_path, frame_limit_bytes=4096) as s:
            answer = await s.write(version, Series(wide, [(now_ms(), 1.0)]), Series(UP, [(now_ms(), 1.0)]))
            assert answer.status == 400
            assert "receiver.frame_limit_bytes" in answer.text
            assert list(await s.samples()) == [UP]

    asyncio.run(run())


@pytest.mark.parametrize("version", VERSIONS)
def test_only_series_that_a_pipeline_selects_are_published(version: int, tmp_path: Path) -> None:
    async def run() -> None:
        pipelines = (
            Pipeline(name="jobs", selector='{job=~"node|api"}'),
            Pipeline(name="ups", selector="up", step_s=15),
        )
        now = now_ms()
        chosen = [named("a", job="node"), named("b", job="api"), named("up", job="other")]
        left = [named("a", job="other"), named("c")]
        ours = [
            named("anomaly_score", **{"for": "a", "job": "node"}),
            named("y", **{"for": "a", "job": "node"}),
        ]
        async with site(tmp_path, pipelines) as s:
            series = [Series(labels, [(now, 1.0), (now + 1, 2.0)]) for labels in chosen + left + ours]
            answer = await s.write(version, *series)
            # A sender takes what is not counted as written for lost.
            assert answer.status == 204
            assert answer.written == (None if version == 1 else (14, 0, 0))
            assert set(await s.samples()) == set(chosen)
            assert s.dropped() == {"unselected": 8}

    asyncio.run(run())


@pytest.mark.parametrize("version", VERSIONS)
def test_one_replica_of_a_pair_is_listened_to(version: int, tmp_path: Path) -> None:
    async def run() -> None:
        now = now_ms()

        def of(replica: str, cluster: str = "x") -> Series:
            return Series(named("up", __replica__=replica, cluster=cluster), [(now, 1.0)])

        async with site(tmp_path, replica_labels=["__replica__"]) as s:
            for _ in range(2):
                for series in (of("a"), of("b"), of("b", "y"), of("a", "y")):
                    assert (await s.write(version, series)).status == 204
            assert await s.samples() == {
                named("up", cluster="x"): [(now, 1.0)] * 2,
                named("up", cluster="y"): [(now, 1.0)] * 2,
            }
            assert s.dropped() == {"replica": 4}

    asyncio.run(run())


@pytest.mark.parametrize("version", VERSIONS)
def test_samples_in_are_samples_out_and_dropped(version: int, tmp_path: Path) -> None:
    async def run() -> None:
        now = now_ms()
        pipelines = (Pipeline(name="some", selector='{job!="left"}'),)
        async with site(tmp_path, pipelines, replica_labels=["r"]) as s:
            for _ in range(3):
                await s.write(
                    version,
                    Series(UP, [(now, 1.0), (now + 9_000_000, 2.0)]),
                    Series(named("a", job="left"), [(now, 1.0)]),
                    Series(named("a", r="1"), [(now, 1.0)]),
                    Series(named("a", r="2"), [(now, 1.0)]),
                    Series((("job", "nameless"),), [(now, 1.0), (now, 2.0)]),
                )
            assert s.dropped() == {"unselected": 3, "replica": 3, "future": 3, "refused": 6}
            assert s.count("samples_total") == 21
            assert s.count("samples_published_total") == 6
            assert sum(len(found) for found in (await s.samples()).values()) == 6

    asyncio.run(run())


def test_what_is_gathered_is_sent_at_the_stop(tmp_path: Path) -> None:
    async def run() -> None:
        async with site(tmp_path, coalesce_ms=1000.0) as s:
            writing = asyncio.create_task(s.write(1, Series(UP, [(now_ms(), 1.0)])))
            await until(lambda: s.count("samples_total") == 1)
            await s.receiver.stop()
            assert list(await s.samples()) == [UP]
            assert (await writing).status == 204

    asyncio.run(run())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_table_that_forgets_costs_no_sample(version: int, tmp_path: Path) -> None:
    async def run() -> None:
        now = now_ms()
        series = [Series(named("m", i=str(i)), [(now, float(i))]) for i in range(3000)]
        async with site(tmp_path, known_series=1024) as s:
            for start in range(0, 3000, 500):
                assert (await s.write(version, *series[start : start + 500])).status == 204
            assert (await s.write(version, *series)).status == 204
            assert await s.samples() == {x.labels: list(x.samples) * 2 for x in series}

    asyncio.run(run())
