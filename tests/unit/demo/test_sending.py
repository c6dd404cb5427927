"""The fleet's past, as an installation gets it."""

import asyncio
import itertools
import time

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from openanomaly.demo import sending
from openanomaly.demo.product import STEP_S, DemoError
from parts.recorder import recorder
from scores import samples


def test_the_past_ends_now_and_faults_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sending, "_PAUSE_S", 0.0)
    with recorder() as held:
        count = asyncio.run(sending.send(held.url, series=200, seed=1, days=1))
    found = [sample for request in held.requests for sample in samples(request.body)]
    assert len(found) == count
    times = sorted({time_ms for _, time_ms, _ in found})
    assert {b - a for a, b in itertools.pairwise(times)} == {STEP_S * 1000}
    assert 0 <= time.time() * 1000 - times[-1] <= 2 * STEP_S * 1000
    assert all(dict(labels)["instance"].endswith(".demo:9100") for labels, _, _ in found)

    told = capsys.readouterr().out
    assert told.count("UTC  spike: ") == 3
    assert "counter reset" not in told  # it must not alarm


def test_a_receiver_that_refuses_is_told() -> None:
    async def send() -> None:
        async with TestServer(web.Application()) as nobody:
            await sending.send(str(nobody.make_url("/api/v1/write")), series=200, seed=1, days=1)

    with pytest.raises(DemoError, match=r"/api/v1/write answered 404"):
        asyncio.run(send())
