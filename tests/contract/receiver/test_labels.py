"""Labels go along with the first samples of a series, and again before any reader may have forgotten it."""

import asyncio
import itertools
from pathlib import Path

import pytest

from messages import Series, named
from receiving import Site, now_ms, site

VERSIONS = (1, 2)
A = named("a", job="x")


async def labelled(s: Site) -> list[list[bool]]:
    """Of each frame, in their order by partition: which series have labels."""
    return [frame.series.has_labels.tolist() for _, frame, _ in await s.frames()]


@pytest.mark.parametrize("version", VERSIONS)
def test_labels_go_along_once(version: int, tmp_path: Path) -> None:
    async def run() -> None:
        async with site(tmp_path) as s:
            for i in range(3):
                assert (await s.write(version, Series(A, [(now_ms() + i, 1.0)]))).status == 204
            assert await labelled(s) == [[True], [False], [False]]
            assert s.count("labels_published_total") == 1
            assert len((await s.samples())[A]) == 3

    asyncio.run(run())


def test_the_same_series_of_another_version_or_order_is_told_again(tmp_path: Path) -> None:
    async def run() -> None:
        async with site(tmp_path) as s:
            for labels in (A, A[::-1]):
                for version in VERSIONS:
                    assert (await s.write(version, Series(labels, [(now_ms(), 1.0)]))).status == 204
            # What 2.0 hashes does not depend on the order of labels.
            assert await labelled(s) == [[True], [True], [True], [False]]
            assert list(await s.samples()) == [A]

    asyncio.run(run())


@pytest.mark.parametrize("version", VERSIONS)
def test_labels_go_along_again_after_a_while(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with site(tmp_path, labels_every_s=100) as s:
            start, now = now_ms() / 1000, 0.0
            monkeypatch.setattr("openanomaly.agents.ingest.time.time", lambda: start + now)
            told = []
            for now in range(0, 400, 5):
                await s.write(version, Series(A, [(int((start + now) * 1000), 1.0)]))
                frames = await labelled(s)
                if frames[-1] == [True]:
                    told.append(now)
            assert told[0] == 0
            assert 4 <= len(told) <= 6
            assert all(75 <= b - a <= 105 for a, b in itertools.pairwise(told))

    asyncio.run(run())


@pytest.mark.parametrize("version", VERSIONS)
def test_labels_that_did_not_become_durable_go_along_again(version: int, tmp_path: Path) -> None:
    async def run() -> None:
        async with site(tmp_path) as s:
            broker = s.app.producer_transport.broker
            limit, broker.disk_limit_bytes = broker.disk_limit_bytes, 1
            assert (await s.write(version, Series(A, [(now_ms(), 1.0)]))).status == 503
            broker.disk_limit_bytes = limit
            for _ in range(2):
                assert (await s.write(version, Series(A, [(now_ms(), 1.0)]))).status == 204
            assert await labelled(s) == [[True], [False]]

    asyncio.run(run())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("first", ["nothing", "exemplar", "future"])
def test_labels_of_a_series_without_a_sample_are_not_told(version: int, first: str, tmp_path: Path) -> None:
    """They are in no frame, whatever else the request has."""

    async def run() -> None:
        async with site(tmp_path) as s:
            bare = {
                "nothing": Series(A),
                "exemplar": Series(A, (), [named("trace", id="1")]),
                "future": Series(A, [(now_ms() + 10**9, 1.0)]),
            }[first]
            other = Series(named("b"), [(now_ms(), 1.0)])
            assert (await s.write(version, bare, other)).status == (400 if first == "future" else 204)
            assert s.count("labels_published_total") == 1
            assert (await s.write(version, Series(A, [(now_ms(), 1.0)]))).status == 204
            assert sorted(await labelled(s)) == [[True], [True]]

    asyncio.run(run())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_series_that_was_forgotten_is_told_again(version: int, tmp_path: Path) -> None:
    async def run() -> None:
        async with site(tmp_path, known_series=1024) as s:
            assert (await s.write(version, Series(A, [(now_ms(), 1.0)]))).status == 204
            for start in range(0, 4000, 500):
                many = [Series(named("m", i=str(i)), [(now_ms(), 1.0)]) for i in range(start, start + 500)]
                assert (await s.write(version, *many)).status == 204
            assert (await s.write(version, Series(A, [(now_ms(), 1.0)]))).status == 204
            assert len(await s.samples()) == 4001  # each of them with its labels
            assert len((await s.samples())[A]) == 2

    asyncio.run(run())


def test_a_series_twice_in_one_frame_has_its_labels(tmp_path: Path) -> None:
    """One request knows them as told, another does not."""

    async def run() -> None:
        async with site(tmp_path, coalesce_ms=200) as s:
            assert (await s.write(1, Series(A, [(now_ms(), 1.0)]))).status == 204
            answers = await asyncio.gather(
                s.write(1, Series(A, [(now_ms(), 2.0)])), s.write(2, Series(A, [(now_ms(), 3.0)]))
            )
            assert [answer.status for answer in answers] == [204, 204]
            assert await labelled(s) == [[True], [True]]

    asyncio.run(run())
