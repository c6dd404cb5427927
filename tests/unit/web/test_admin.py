"""The admin API: what it shows, and what it refuses."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from openanomaly.core.pipelines.selector import Selector
from openanomaly.settings import Settings
from openanomaly.web.admin import Admin
from openanomaly.web.auth import ADMIN
from openanomaly.web.server import Health, WebServer

SETTINGS = Settings.model_validate(
    {"sink": {"url": "http://me:hunter2@a/write", "bearer_token": "hunter2"}, "pipelines": [{"name": "all"}]}
)


async def explain(selector: str) -> list[dict[str, Any]]:
    return [{"selector": str(Selector.parse(selector).text)}]


async def count(selector: str) -> dict[str, int]:
    Selector.parse(selector)
    return {"series": 3, "partitions": 1, "partitions_of_all": 2}


def ask(path: str, *, method: str = "GET", body: str = "", with_windows: bool = True) -> tuple[int, Any]:
    """Status and answer, as JSON if it is."""

    async def run() -> tuple[int, Any]:
        server, admin = (
            WebServer(SETTINGS.web, CollectorRegistry(), Health()),
            Admin(SETTINGS, lambda: SETTINGS.pipelines),
        )
        admin.report("sink", lambda: {"up": True})
        if with_windows:
            admin.explain(explain, count)
        admin.register(server)
        async with (
            TestClient(TestServer(server.app)) as client,
            client.request(method, ADMIN + path, data=body) as got,
        ):
            is_json = got.content_type == "application/json"
            return got.status, await got.json() if is_json else await got.text()

    return asyncio.run(run())


def test_every_room_reports() -> None:
    assert ask("status") == (200, {"sink": {"up": True}})


def test_pipelines_and_settings_are_shown_without_secrets() -> None:
    status, pipelines = ask("pipelines")
    assert (status, [p["name"] for p in pipelines]) == (200, ["all"])
    status, settings = ask("settings")
    assert status == 200
    assert settings["window"]["max_series"] == 1_000_000
    assert "hunter2" not in str(settings)


def test_series_are_looked_up_by_selector() -> None:
    assert ask("series?match=up%7Bjob%3D%22a%22%7D") == (200, [{"selector": 'up{job="a"}'}])
    assert ask("series/count?match=up") == (200, {"series": 3, "partitions": 1, "partitions_of_all": 2})


@pytest.mark.parametrize(
    ("path", "with_windows", "status", "message"),
    [
        ("series", True, 400, "parameter match is missing"),
        ("series?match=%7B", True, 400, "parameter match: cannot parse selector '{'"),
        (
            "series?match=%7Ba%3D~%22(%22%7D",
            True,
            400,
            "parameter match: cannot parse the regular expression",
        ),
        ("series?match=up", False, 404, "keeps no windows"),
        ("series/count?match=up", False, 404, "keeps no windows"),
        ("series/count?match=%7B", True, 400, "parameter match: cannot parse selector '{'"),
        ("no-such-thing", True, 404, "Not Found"),
    ],
)
def test_what_cannot_be_answered_says_why(path: str, with_windows: bool, status: int, message: str) -> None:
    found, text = ask(path, with_windows=with_windows)
    assert found == status
    assert message in text


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    logger = logging.getLogger("openanomaly")
    level = logger.level
    yield logger
    logger.setLevel(level)


def test_the_log_level_changes_while_it_runs(log: logging.Logger) -> None:
    assert ask("log-level", method="PUT", body="Debug\n") == (200, {"level": "debug"})
    assert log.level == logging.DEBUG
    status, text = ask("log-level", method="PUT", body="loud")
    assert (status, log.level) == (400, logging.DEBUG)
    assert "expected one of debug, info, warning, error" in text
