"""The status page and its API: who is answered, with what headers, and that answers are valid."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from openanomaly.core.anomalies.board import Board, Limits
from openanomaly.settings import Settings, WebSettings
from openanomaly.telemetry import Telemetry
from openanomaly.web.overview import Overview
from openanomaly.web.server import Health, WebServer
from openanomaly.web.status import API, StatusPage
from unit.core.anomalies.boards import START, board, hosts, series, step

PATHS = ["/", "/page/style.css", "/page/page.js", "/page/chart.js", "/page/text.js", "/page/icon.svg", API]
EVIL = series("evil", job='"><script>alert(1)</script>', path="x" * 4000, quote="'\"\\\u2028</script>")
AUTH = {"auth": {"bearer_token": "t0ken"}}


class Following:
    """The scores are read, but for one record."""

    unread, taken, rejected, missed, since_s, behind_s = 3, 10, 1, 0, 1.5, 12.34
    error: str | None = None


Answer = tuple[int, Mapping[str, str], bytes]


def ask(
    *paths: str,
    found: Board | None = None,
    web: Mapping[str, Any] | None = None,
    following: Following | None = None,
    **headers: str,
) -> list[Answer]:
    """Status, headers and body of each path, one after the other from one server."""

    async def run() -> list[Answer]:
        settings = Settings(web=WebSettings.model_validate(web or {}))
        telemetry, health = Telemetry(), Health(ready={"sink": lambda: "the target does not take scores"})
        telemetry.lag.records.labels("sink", "openanomaly.scores").set(7)
        telemetry.lag.oldest_seconds.labels("sink", "openanomaly.scores").set(12.34)
        telemetry.receiver.samples.inc(40)
        reports = {
            "sink": lambda: {"up": False, "error": "http://secret-host/ refused"},
            "inference": lambda: {"models": {"auto": "nano"}},
            "window": lambda: {
                "series": 4, "max_series": 10, "emit": "all", "counts": {"closed_steps": 8, "scored": 4}
            },
        }  # fmt: skip
        overview = Overview(
            settings,
            ("receiver", "sink"),
            telemetry,
            health,
            reports,
            following or Following(),
            lambda: settings.pipelines,
        )
        server = WebServer(settings.web, CollectorRegistry(), health)
        shown = Board(Limits()) if found is None else found
        StatusPage(shown, lambda: ["default"], overview, clock=lambda: 1000.5).register(server)
        out = []
        async with TestClient(TestServer(server.app)) as client:
            for path in paths:
                async with client.get(path, headers=headers) as got:
                    out.append((got.status, got.headers, await got.read()))
        return out

    return asyncio.run(run())


def get(query: str = "", **options: Any) -> dict[str, Any]:
    [(status, _, body)] = ask(API + query, **options)
    assert status == 200, body
    found: dict[str, Any] = json.loads(body)
    return found


@pytest.mark.parametrize("path", PATHS)
def test_page_and_api_have_the_authentication_of_the_receiver(path: str) -> None:
    assert [status for status, *_ in ask(path, web=AUTH)] == [401]
    assert [status for status, *_ in ask(path, web=AUTH, Authorization="Bearer t0ken")] == [200]


@pytest.mark.parametrize("path", PATHS)
def test_nothing_from_elsewhere_and_nothing_inline_may_run(path: str) -> None:
    [(_, headers, body)] = ask(path)
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert {value for name, value in policy.items() if name != "default-src"} <= {"'self'", "'none'"}
    assert headers["X-Content-Type-Options"] == "nosniff"
    for outside in (b"http://", b"https://", b"//cdn", b"style=", b"innerHTML"):
        assert outside not in body.replace(b"http://www.w3.org/2000/svg", b"").replace(
            b"http://RECEIVER", b""
        )


def test_everything_the_page_names_is_there() -> None:
    [(_, headers, page)] = ask("/")
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    for path in ("page/style.css", "page/page.js", "page/icon.svg"):
        assert f'"{path}"'.encode() in page
    kinds = [headers["Content-Type"].split(";")[0] for _, headers, _ in ask(*PATHS[1:6])]
    assert kinds == ["text/css", *["text/javascript"] * 3, "image/svg+xml"]


def test_each_formatter_of_numbers_is_made_once() -> None:
    [(_, _, text)] = ask("/page/text.js")
    made = [line for line in text.decode().splitlines() if "new Intl.NumberFormat" in line]
    assert all(line.startswith("const ") for line in made)
    assert len(made) == len({line.split(" = ")[1] for line in made}) == 4


def test_the_api_says_what_is_watched_and_how_we_are() -> None:
    answer = get(found=board(step(hosts(3), 0, {1: START})))
    assert answer["now_ms"] == 1_000_500
    assert (answer["watched"]["series"], answer["watched"]["samples"]) == (4, 40)
    assert answer["watched"]["pipelines"][0]["warmup"] == 144
    health = answer["health"]
    assert health["reasons"] == {"sink": "the target does not take scores"}
    assert health["lag"] == [{"role": "sink", "topic": "scores", "unread": 7, "oldest_s": 12.3}]
    assert health["target"] == {"is_set": False, "is_up": False}
    assert health["models"] == {"auto": "nano"}
    assert health["scores"] == {
        "is_connected": True, "since_ms": 1500, "unread": 3, "behind_s": 12.3, "taken": 10, "rejected": 1,
        "missed": 0,
    }  # fmt: skip
    assert answer["summary"]["anomalous"] == 1
    assert "secret-host" not in json.dumps(answer)


def test_a_lost_broker_is_told_without_its_address() -> None:
    lost = Following()
    lost.error = "KafkaConnectionError: kafka-0.internal:9092"
    answer = get(following=lost)
    assert answer["health"]["scores"]["is_connected"] is False
    assert "kafka-0" not in json.dumps(answer)


def test_labels_of_any_kind_come_as_they_are() -> None:
    [anomaly] = get(found=board(step([EVIL], 0, {0: START})))["anomalies"]
    assert anomaly["labels"] == dict(EVIL)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_answer_is_json_whatever_the_numbers_are(value: float) -> None:
    odd = replace(step(hosts(2), 0, {0: START}), value=np.full(2, value))
    [(_, _, body)] = ask(API, found=board(odd))

    def refuse(word: str) -> None:
        raise AssertionError(word)

    assert json.loads(body, parse_constant=refuse)["anomalies"][0]["value"] is None


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?limit=x", "parameter limit: 'x' is no number from 0 to 500\n"),
        ("?pipeline=nope", "parameter pipeline: there is no 'nope'; they are default\n"),
        ("?match=%7B", "parameter match: cannot parse selector '{'"),
        ("?state=open&state=ended", "a parameter is given twice"),
        ("?whatever", "parameter whatever: there is none of this name"),
    ],
)
def test_a_wrong_parameter_is_400_and_says_so(query: str, message: str) -> None:
    [(status, headers, body)] = ask(API + query)
    assert (status, headers["Content-Type"]) == (400, "text/plain; charset=utf-8")
    assert message in body.decode()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?limit=1", 1),
        ("?match=load%7Binstance%3D%22host-2%22%7D", 1),
        ("?group=node", 3),
        ("?state=ended", 0),
    ],
)
def test_parameters_choose(query: str, expected: int) -> None:
    found = board(step(hosts(3), 0, dict.fromkeys(range(3), int(START))))
    assert len(get(query, found=found)["anomalies"]) == expected


def test_ten_thousand_anomalies_are_a_bounded_answer() -> None:
    many = hosts(10_000)
    found = board(step(many, 0, dict.fromkeys(range(10_000), int(START))))
    [(_, _, body)] = ask(API, found=found)
    answer = json.loads(body)
    assert (answer["summary"]["anomalous"], len(answer["anomalies"])) == (10_000, 50)
    assert answer["summary"]["left_out"] == 9_000
    assert len(body) < 100_000


@pytest.mark.parametrize("path", PATHS)
def test_who_has_the_newest_answer_gets_none(path: str) -> None:
    found = board(step(hosts(3), 0, {1: START}))
    [(_, headers, _)] = ask(path, found=found)
    assert headers["Cache-Control"] == "no-cache"
    [(status, _, body)] = ask(path, found=found, **{"If-None-Match": headers["ETag"]})
    assert (status, body) == (304, b"")
    [(status, _, body)] = ask(path, found=found, **{"If-None-Match": '"another"'})
    assert status == 200
    assert body


def test_an_answer_that_changed_has_another_tag() -> None:
    found = board(step(hosts(3), 0, {1: START}))
    [(_, before, _)] = ask(API, found=found)
    found.take(step(hosts(3), 1, {1: START}), 2**50)
    [(_, after, _)] = ask(API, found=found)
    assert before["ETag"] != after["ETag"]
