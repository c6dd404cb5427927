"""Mutated bodies end in an answer, and are counted; a million of them: tests/contract/receiver/mutate.py."""

import asyncio
import itertools
import logging
from collections import Counter
from pathlib import Path

import pytest

from contract.receiver.mutations import mutated
from messages import HEADERS, Series, named, packed
from receiving import now_ms, site

BODIES = 3000


@pytest.mark.timeout(60)
def test_mutated_bodies_are_answered_and_every_sample_of_them_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        # So few known series that the table is emptied on the way.
        async with site(tmp_path, known_series=1024) as s:
            bodies = itertools.islice(mutated(seed=7), BODIES)
            statuses: Counter[int] = Counter()

            async def worker() -> None:
                for body in bodies:
                    async with asyncio.timeout(10):
                        answer = await s.post(body.packed, HEADERS[body.version])
                    assert answer.status in (204, 400, 413, 503), (answer, body)
                    statuses[answer.status] += 1

            await asyncio.gather(*(worker() for _ in range(16)))

            assert statuses.total() == BODIES
            assert statuses[204] > BODIES / 20, "hardly any mutation leaves a body valid: nothing is tested"
            assert statuses[400] > BODIES / 20
            for version in (1, 2):
                good = Series(named("valid", version=str(version)), [(now_ms(), 1.0)])
                assert (await s.write(version, good)).status == 204
                assert (await s.samples())[good.labels] == good.samples
            published = s.count("samples_published_total")
            assert s.count("samples_total") == published + sum(s.dropped().values())
            assert sum(len(frame.row) for _, frame, _ in await s.frames()) == published
            assert s.receiver._in_flight.used_bytes == 0

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    # An exception that a decoder had not foreseen is answered 400 all the same, and logged.
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


def test_equal_seeds_give_equal_bodies() -> None:
    def first(seed: int) -> list[object]:
        return list(itertools.islice(mutated(seed), 100))

    assert first(1) == first(1)
    assert first(1) != first(2)


@pytest.mark.parametrize(
    ("version", "part", "what"),
    [(1, b"\x0a\0", "time series"), (2, b"\x2a\0", "time series"), (1, b"\x1a\0", "metadata")],
)
@pytest.mark.timeout(60)
def test_a_body_of_nothing_but_empty_parts_is_refused_before_any_is_read(
    version: int, part: bytes, what: str, tmp_path: Path
) -> None:
    """One mebibyte of them travels as fifty kilobytes; read one by one they took seconds and 350 MiB."""

    async def run() -> None:
        async with site(tmp_path) as s:
            body = packed((b"\x22\0" if version == 2 else b"") + part * (1 << 19))
            answer = await s.post(body, HEADERS[version])
            assert answer.status == 413
            assert f"524288 {what}, limit 100000" in answer.text
            assert s.count("known_series") == 0

    asyncio.run(run())


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.timeout(60)
def test_series_of_too_many_empty_samples_are_refused(version: int, tmp_path: Path) -> None:
    """Each series stays below the limit, all of them do not."""

    async def run() -> None:
        async with site(tmp_path) as s:
            # Both versions: field 2 of a time series is its samples.
            samples = b"\x12\0" * 600_000
            head = b"\x0a" if version == 1 else b"\x22\0\x2a"
            series = b"\x80\x9f\x49" + samples  # 1,200,000 bytes
            body = packed(head + series + head[-1:] + series)
            answer = await s.post(body, HEADERS[version])
            assert answer.status == 413
            assert "1200000 samples, histograms and exemplars, limit 1000000" in answer.text

    asyncio.run(run())
