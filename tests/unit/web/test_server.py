"""The web server of a process: probes, and where it says it is."""

import asyncio

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from openanomaly.settings import WebSettings
from openanomaly.web.server import Health, WebServer


def probe(path: str, health: Health) -> tuple[int, dict[str, str]]:
    async def run() -> tuple[int, dict[str, str]]:
        server = WebServer(WebSettings(), CollectorRegistry(), health)
        async with TestClient(TestServer(server.app)) as client, client.get(path) as got:
            return got.status, (await got.json())["reasons"]

    return asyncio.run(run())


def test_a_process_is_ready_when_nothing_speaks_against_it() -> None:
    health = Health(ready={"sink": lambda: None, "window": lambda: None})
    assert probe("/-/ready", health) == (200, {})
    health.ready["window"] = lambda: "windows are recovering"
    assert probe("/-/ready", health) == (503, {"window": "windows are recovering"})
    assert probe("/-/healthy", health) == (200, {})


def test_who_is_not_alive_is_not_ready() -> None:
    health = Health(alive={"process": lambda: "stuck"}, ready={"sink": lambda: None})
    assert probe("/-/healthy", health) == probe("/-/ready", health) == (503, {"process": "stuck"})


@pytest.mark.parametrize(
    ("listen", "host"),
    [("127.0.0.1:0", "127.0.0.1"), (":0", "localhost"), ("0.0.0.0:0", "localhost"), ("[::1]:0", "[::1]")],
)
def test_its_address_is_one_to_push_to(listen: str, host: str) -> None:
    async def run() -> None:
        server = WebServer(WebSettings(listen=listen), CollectorRegistry(), Health())
        await server.start()
        assert server.url == f"http://{host}:{server.port}"
        await server.stop()

    asyncio.run(run())
