"""Every limit of the receiver is a setting, and what passes it is told which one."""

import asyncio
from pathlib import Path

import pytest

from messages import HEADERS, Series, encode, named, packed
from openanomaly.core.series import varint
from openanomaly.pb.prometheus import remote_write_2_pb2 as pb2
from openanomaly.settings.sources import load
from receiving import now_ms, site

VERSIONS = (1, 2)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("setting", "limit", "below", "above", "reason"),
    [
        ("label_names_limit", 3, {"a": "1", "b": "2"}, {"a": "1", "b": "2", "c": "3"}, "4 labels, limit 3"),
        ("label_name_limit_bytes", 10, {"n" * 10: "x"}, {"n" * 11: "x"}, "11 bytes, limit 10"),
        ("label_value_limit_bytes", 5, {"a": "v" * 5}, {"a": "v" * 6}, "6 bytes, limit 5"),
    ],
)
def test_labels_are_as_many_and_as_long_as_is_set(
    version: int,
    setting: str,
    limit: int,
    below: dict[str, str],
    above: dict[str, str],
    reason: str,
    tmp_path: Path,
) -> None:
    async def run() -> None:
        now = now_ms()
        async with site(tmp_path, **{setting: limit}) as s:
            assert (await s.write(version, Series(named("up", **below), [(now, 1.0)]))).status == 204
            answer = await s.write(version, Series(named("up", **above), [(now, 1.0)]))
            assert answer.status == 400
            assert reason in answer.text
            assert f"receiver.{setting}" in answer.text
            assert s.dropped() == {"refused": 1}

    asyncio.run(run())


@pytest.mark.parametrize("version", VERSIONS)
def test_samples_may_be_as_far_ahead_as_is_set(version: int, tmp_path: Path) -> None:
    async def run() -> None:
        now = now_ms()
        async with site(tmp_path, max_future_s=3600) as s:
            assert (await s.write(version, Series(named("up"), [(now + 3_500_000, 1.0)]))).status == 204
            answer = await s.write(version, Series(named("up"), [(now + 3_700_000, 1.0)]))
            assert answer.status == 400
            assert "limit 3600; raise receiver.max_future_s" in answer.text

    asyncio.run(run())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("setting", ["body_limit_bytes", "unpacked_limit_bytes"])
def test_bodies_are_as_large_as_is_set(version: int, setting: str, tmp_path: Path) -> None:
    async def run() -> None:
        # Names that do not compress: both sizes are above the limit.
        series = [Series(named(f"m{i * 2654435761 % 2**32:x}"), [(now_ms(), 1.0)]) for i in range(200)]
        async with site(tmp_path, **{setting: 1024}) as s:
            answer = await s.post(packed(encode(version, series)), HEADERS[version])
            assert answer.status == 413
            variable = f"OPENANOMALY_RECEIVER_{setting.upper()}"
            assert f"raise receiver.{setting} ({variable})" in answer.text
            # The name that is told is one that is taken.
            assert load(None, {variable: "2048"}, {}).receiver.model_dump()[setting] == 2048
            assert (await s.write(version, series[0])).status == 204

    asyncio.run(run())


@pytest.mark.parametrize("version", VERSIONS)
def test_another_replica_is_listened_to_after_a_silence_as_long_as_is_set(
    version: int, tmp_path: Path
) -> None:
    async def run() -> None:
        def of(replica: str) -> Series:
            return Series(named("up", replica=replica, pair="x"), [(now_ms(), 1.0)])

        names = {"replica_labels": ["replica"], "cluster_label": "pair"}
        async with site(tmp_path, **names, failover_s=0.05) as s:
            await s.write(version, of("a"))
            await s.write(version, of("b"))
            while s.count("samples_published_total") < 2:  # until `a` has been silent for long enough
                await asyncio.sleep(0.06)
                await s.write(version, of("b"))
            assert s.count("failovers_total") == 1
            dropped = s.dropped().get("replica", 0)
            await s.write(version, of("a"))
            assert s.dropped()["replica"] == dropped + 1
            assert s.count("failovers_total") == 1
            assert set(await s.samples()) == {named("up", pair="x")}

    asyncio.run(run())


@pytest.mark.parametrize("labels", [65, 2_000_000])
def test_label_references_are_counted_before_labels_are_made_of_them(labels: int, tmp_path: Path) -> None:
    """A series of 2.0 refers to a label with two bytes, and what is made of it has a hundred and fifty."""

    async def run() -> None:
        now = now_ms()
        good = Series(named("up"), [(now, 1.0)])
        request = pb2.Request.FromString(encode(2, [good, good]))
        request.timeseries[1].labels_refs.extend([1, 2] * (labels - 1))
        async with site(tmp_path, unpacked_limit_bytes=64 << 20) as s:
            answer = await s.post(packed(request.SerializeToString()), HEADERS[2])
            if labels == 65:
                assert answer.status == 400
                assert f"{labels} labels, limit 64; raise receiver.label_names_limit" in answer.text
                assert s.dropped() == {"refused": 1}
            else:
                assert answer.status == 413
                assert "limit 1048576" in answer.text
            assert (await s.write(2, good)).status == 204

    asyncio.run(run())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_series_of_too_many_parts_is_refused_unread(version: int, tmp_path: Path) -> None:
    """An empty sample has two bytes, and fifty when it is read."""

    async def run() -> None:
        good = Series(named("up"), [(now_ms(), 1.0)])
        series = b"\x12\x00" * 1_000_001
        tag = b"\x0a" if version == 1 else b"\x22\x00\x2a"
        async with site(tmp_path) as s:
            answer = await s.post(packed(tag + varint(len(series)) + series), HEADERS[version])
            assert answer.status == 413
            assert "1000001 parts of one time series, limit 1000000" in answer.text
            assert (await s.write(version, good)).status == 204

    asyncio.run(run())


def test_label_references_of_a_request_are_limited(tmp_path: Path) -> None:
    async def run() -> None:
        good = Series(named("up"), [(now_ms(), 1.0)])
        request = pb2.Request.FromString(encode(2, [good]))
        request.timeseries[0].labels_refs[:] = [1, 2] * 8000
        one = request.timeseries[0]
        request.timeseries.extend([one] * 524)
        async with site(tmp_path) as s:
            answer = await s.post(packed(request.SerializeToString()), HEADERS[2])
            assert answer.status == 413
            assert "8400000 bytes of label references, limit 8388608" in answer.text

    asyncio.run(run())
