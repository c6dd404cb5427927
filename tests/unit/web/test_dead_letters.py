"""The admin API's part for dead letters: what it asks for, what it answers, what it refuses."""

import asyncio
import json
from collections.abc import Collection
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from openanomaly.core.letters import Filter, Letter, Outcome, Replay
from openanomaly.errors import BusUnavailableError
from openanomaly.settings import WebSettings
from openanomaly.web.dead_letters import PATH, DeadLetterDesk
from openanomaly.web.server import Health, WebServer

LETTER = Letter(
    7, "crash", "oa.scores", 3, 12, 1_700_000_000_000, True, "Traceback ...", 4, {"kind": "ScoreFrame"}, None
)


class FakeLetters:
    def __init__(self, *letters: Letter) -> None:
        self.letters = letters
        self.asked: list[Any] = []

    async def find(self, wanted: Filter, limit: int) -> list[Letter]:
        self.asked.append((wanted, limit))
        return list(self.letters)

    async def get(self, id_: int) -> tuple[Letter, bytes] | None:
        return (LETTER, b"\x00\x01\xff\n") if id_ == LETTER.id else None

    async def replay(
        self, ids: Collection[int], *, force: bool = False, dry_run: bool = False
    ) -> list[Outcome]:
        self.asked.append((list(ids), force, dry_run))
        return [Outcome(x, "replayed", "oa.scores", 3, 99) for x in ids]


def ask(
    path: str = "",
    body: Any = None,
    content_type: str = "application/json",
    letters: Any = None,
    web: dict[str, Any] | None = None,
    **headers: str,
) -> tuple[int, Any]:
    """Status and answer: JSON, text or bytes."""

    async def run() -> tuple[int, Any]:
        settings = WebSettings.model_validate(web or {})
        server = WebServer(settings, CollectorRegistry(), Health())
        DeadLetterDesk(letters or FakeLetters(LETTER)).register(server)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = headers | ({"Content-Type": content_type} if data is not None else {})
        method = "GET" if data is None else "POST"
        async with (
            TestClient(TestServer(server.app)) as client,
            client.request(method, PATH + path, data=data, headers=sent) as got,
        ):
            if got.content_type == "application/json":
                return got.status, await got.json()
            return got.status, await (got.read() if "octet" in got.content_type else got.text())

    return asyncio.run(run())


def test_letters_are_listed_with_all_that_is_known_of_them() -> None:
    status, found = ask()
    assert status == 200
    assert found == {
        "letters": [
            {
                "id": 7,
                "reason": "crash",
                "topic": "oa.scores",
                "partition": 3,
                "offset": 12,
                "noted_ms": 1_700_000_000_000,
                "set_aside": True,
                "detail": "Traceback ...",
                "payload_bytes": 4,
                "payload": {"kind": "ScoreFrame"},
                "obstacle": None,
                "replays": [],
            }
        ]
    }


@pytest.mark.parametrize(
    ("query", "wanted", "limit"),
    [
        ("", Filter(), 100),
        ("?topic=scores&reason=crash&limit=3", Filter(topic="scores", reason="crash"), 3),
        ("?since_ms=5&before=9&set_aside=false", Filter(since_ms=5, before=9, set_aside=False), 100),
        ("?set_aside=true&limit=1000", Filter(set_aside=True), 1000),
    ],
)
def test_a_query_becomes_a_filter(query: str, wanted: Filter, limit: int) -> None:
    letters = FakeLetters()
    assert ask(query, letters=letters) == (200, {"letters": []})
    assert letters.asked == [(wanted, limit)]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?limit=0", "limit=0: expected 1 to 1000"),
        ("?limit=1001", "expected 1 to 1000"),
        ("?limit=-1", "limit=-1: expected a whole number"),
        ("?since_ms=1e9", "since_ms=1e9: expected a whole number"),
        ("?before=%D9%A3", "before=٣: expected a whole number"),
        ("?set_aside=yes", "expected true or false"),
        ("?topics=scores", "there is no parameter 'topics'"),
        ("/x", "id=x: expected a whole number"),
        ("/99999999999999999999", "expected a whole number"),
    ],
)
def test_a_question_that_is_none_is_refused(query: str, message: str) -> None:
    status, text = ask(query)
    assert status == 400
    assert message in text


def test_one_letter_and_its_payload() -> None:
    status, found = ask("/7")
    assert (status, found["id"], found["detail"]) == (200, 7, "Traceback ...")
    assert ask("/7/payload") == (200, b"\x00\x01\xff\n")
    for path in ("/8", "/8/payload"):
        assert ask(path) == (404, "there is no dead letter 8\n")


def test_letters_are_replayed_by_id() -> None:
    letters = FakeLetters()
    status, found = ask("/replay", {"ids": [3, 1], "force": True, "dry_run": True}, letters=letters)
    assert status == 200
    assert found["letters"][0] == {
        "id": 3,
        "outcome": "replayed",
        "topic": "oa.scores",
        "partition": 3,
        "offset": 99,
        "why": "",
    }
    assert letters.asked == [([3, 1], True, True)]


def test_letters_are_replayed_by_filter_unless_they_cannot_be_or_were_before() -> None:
    def letter(id_: int, **changes: Any) -> Letter:
        fields = {"reason": "crash", "topic": "oa.due", "partition": 0, "offset": id_, "noted_ms": 1}
        rest = {"set_aside": True, "detail": "", "payload_bytes": 0, "payload": None, "obstacle": None}
        return Letter(id_, **{**fields, **rest, **changes})

    found = (letter(5), letter(4, obstacle="it is not whole"), letter(3, replays=(Replay(9, 1),)), letter(2))
    letters = FakeLetters(*found)
    assert ask("/replay", {"topic": "due", "limit": 2}, letters=letters)[0] == 200
    assert letters.asked[0][0] == Filter(topic="due", set_aside=True)
    assert letters.asked[1] == ([5, 2], False, False)
    letters = FakeLetters(*found)
    assert ask("/replay", {"force": True}, letters=letters)[0] == 200
    assert letters.asked[1] == ([5, 3, 2], True, False)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "Invalid JSON"),
        ({"ids": ["1"]}, 400, "ids.0: Input should be a valid integer"),
        ({"ids": [-1]}, 400, "ids.0"),
        ({"ids": list(range(101))}, 400, "at most 100 items"),
        ({"id": 1}, 400, "id: Extra inputs are not permitted"),
        ([], 400, "body"),
        ({"ids": [1] * 40_000}, 413, "65536"),
    ],
)
def test_a_replay_that_is_none_is_refused(body: Any, status: int, message: str) -> None:
    letters = FakeLetters()
    found, text = ask("/replay", body, letters=letters)
    assert found == status
    assert message in text
    assert letters.asked == []


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_a_page_in_a_browser_cannot_replay(content_type: str) -> None:
    """These are sent to any address without asking; JSON is not."""
    letters = FakeLetters()
    assert ask("/replay", {"ids": [1]}, content_type, letters=letters)[0] == 415
    assert letters.asked == []


def test_replays_need_the_admins_credentials() -> None:
    web = {"auth": {"bearer_token": "t0ken"}, "admin_auth": {"bearer_token": "r00t"}}
    for path, body in (("", None), ("/7/payload", None), ("/replay", {"ids": [1]})):
        assert ask(path, body, web=web, Authorization="Bearer t0ken")[0] == 401
        assert ask(path, body, web=web, Authorization="Bearer r00t")[0] == 200


def test_a_broker_that_is_away_is_said_so() -> None:
    class Away(FakeLetters):
        async def find(self, wanted: Filter, limit: int) -> list[Letter]:
            raise BusUnavailableError("cannot read oa.dead-letter: away")

    assert ask(letters=Away()) == (503, "cannot read oa.dead-letter: away\n")
