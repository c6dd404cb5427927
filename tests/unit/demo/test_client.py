"""What the demo asks of the product."""

import asyncio
from typing import Any

import aiohttp
from aiohttp.test_utils import TestServer
from prometheus_client import CollectorRegistry

from openanomaly.core.series import Labels
from openanomaly.demo.client import Client
from openanomaly.settings import WebSettings
from openanomaly.web.server import Health, WebServer
from openanomaly.web.status import StatusPage
from scores import NOW_MS
from unit.core.anomalies.boards import START, board, hosts, series, step

ODD = series("load", path='C:\\"x"\n', text="\u00e4{}")


def test_a_series_is_found_among_more_than_are_listed() -> None:
    fleet = [ODD, *hosts(900)]
    found = board(step(fleet, 0, dict.fromkeys(range(901), int(START)), {0: 1.1}))

    async def ask(*wanted: Labels) -> list[Any]:
        server = WebServer(WebSettings(), CollectorRegistry(), Health())
        StatusPage(found, lambda: ["default"], dict).register(server)
        async with TestServer(server.app) as running, aiohttp.ClientSession() as session:
            client = Client(session, str(running.make_url("")).rstrip("/"))
            return [await client.anomaly(labels, NOW_MS) for labels in wanted]

    odd, host, none = asyncio.run(ask(ODD, fleet[77], hosts(1, "other")[0]))
    assert odd["labels"] == dict(ODD)
    assert host["labels"]["instance"] == "host-76"
    assert none is None
