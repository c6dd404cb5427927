"""Who is served a page, how many are, and what it may load."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import Gauge
from starlette.responses import PlainTextResponse

import openanomaly.playground
from openanomaly.cli import main
from openanomaly.exits import CONFIG
from openanomaly.playground import server
from openanomaly.settings import PlaygroundSettings

AUTH = {"bearer_token": "sesame", "username": "me", "password": "hunter2"}


async def anything(scope: Any, receive: Any, send: Any) -> None:
    """In the place of Streamlit, of which a process has one."""
    await PlainTextResponse("a page")(scope, receive, send)


def app(**settings: Any) -> Any:
    found = PlaygroundSettings.model_validate(settings)
    return server.guarded(anything, found, Gauge("opened", "", registry=None))


def call(application: Any, path: str, caller: str = "127.0.0.1", **headers: str) -> httpx.Response:
    async def called() -> httpx.Response:
        transport = httpx.ASGITransport(application, client=(caller, 5))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:9204") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(called())


def socket(application: Any, caller: str = "127.0.0.1", **headers: str) -> dict[str, Any]:
    """What a WebSocket is answered first, where the application behind takes none."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    given = {"Host": "localhost:9204", **headers}
    scope = {
        "type": "websocket",
        "path": "/_stcore/stream",
        "client": (caller, 5),
        "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
    }
    asyncio.run(application(scope, receive, send))
    return sent[0]


@pytest.mark.parametrize("path", ["/-/healthy", "/-/ready", "/metrics"])
def test_probes_and_scrapes_carry_no_credentials(path: str) -> None:
    assert call(app(auth=AUTH), path, "192.0.2.7").status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/static/index.html", "/_stcore/host-config", "/_stcore/upload_file/a/b"]
)
def test_everything_else_does(path: str) -> None:
    answer = call(app(auth=AUTH), path)
    assert answer.status_code == 401
    assert answer.headers.get_list("WWW-Authenticate") == ['Basic realm="openanomaly"', "Bearer"]
    assert call(app(auth=AUTH), path, Authorization="Bearer sesame").status_code != 401


@pytest.mark.parametrize(
    ("caller", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("192.0.2.7", {}, 403),
        ("127.0.0.1", {"Host": "evil.example:9204"}, 403),
        ("127.0.0.1", {"X-Forwarded-For": "192.0.2.7"}, 403),
    ],
)
def test_without_credentials_only_this_machine_is_served(
    caller: str, headers: dict[str, str], status: int
) -> None:
    answer = call(app(), "/", caller, **headers)
    assert answer.status_code == status
    assert ("playground.auth" in answer.text) == (status == 403)


def test_sockets_are_refused_as_pages_are() -> None:
    assert socket(app(), "192.0.2.7")["type"] == "websocket.close"
    assert socket(app(), Host="evil.example")["type"] == "websocket.close"
    assert socket(app(auth=AUTH))["type"] == "websocket.close"


@pytest.mark.parametrize(
    ("origin", "host", "is_taken"),
    [
        (None, "localhost:9204", True),
        ("http://localhost:9204", "localhost:9204", True),
        ("https://play.example", "play.example", True),
        ("https://PLAY.example", "play.example", True),
        ("https://evil.example", "play.example", False),
        ("http://localhost:9205", "localhost:9204", False),
        ("null", "localhost:9204", False),
        ("http://[", "localhost:9204", False),
    ],
)
def test_pages_of_others_open_no_socket(origin: str | None, host: str, is_taken: bool) -> None:
    seen: list[Any] = []

    async def page(scope: Any, receive: Any, send: Any) -> None:
        seen.append(dict(scope["headers"]))
        await send({"type": "websocket.accept"})

    given = {"Host": host} if origin is None else {"Host": host, "Origin": origin}
    answer = socket(server.Closed(page), **given)
    assert answer["type"] == ("websocket.accept" if is_taken else "websocket.close")
    assert [b"origin" in headers for headers in seen] == [False] * is_taken


def test_a_page_too_many_is_refused() -> None:
    opened = Gauge("opened", "", registry=None)

    async def held() -> None:
        leave = asyncio.Event()

        async def page(scope: Any, receive: Any, send: Any) -> None:
            await leave.wait()

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        sent: list[dict[str, Any]] = []
        limited = server.Limited(page, 2, opened)
        scope: dict[str, Any] = {"type": "websocket"}
        first = [asyncio.create_task(limited(scope, None, send)) for _ in range(2)]  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        assert opened._value.get() == 2
        await limited(scope, None, send)  # type: ignore[arg-type]
        assert sent == [{"type": "websocket.close", "code": 1013}]
        # One that is loaded anew comes before the old one has left.
        again = asyncio.create_task(limited(scope, None, send))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        leave.set()
        await asyncio.gather(*first, again)
        assert len(sent) == 1
        assert opened._value.get() == 0

    asyncio.run(held())


def test_a_page_loads_nothing_from_elsewhere() -> None:
    answer = call(app(), "/")
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe-inline" not in policy["script-src"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_dry_run_says_what_would_start(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--set", "pull.url=http://me:hunter2@db:8428"]
    assert main(["playground", "--listen", ":0", *flags, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out)["starts"] == ["playground on :0", "data of http://**********@db:8428"]
    assert "hunter2" not in out


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("playground.auth.bearer_token_file=/none", "playground.auth.bearer_token_file=/none"),
        ("playground.listen=nonsense", "playground.listen"),
        ("store.url=/none/p.yaml", "/none/p.yaml"),
        ("playground.samples_limit=0", "playground.samples_limit"),
    ],
)
def test_settings_that_cannot_be_used_are_named(
    setting: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["playground", "--set", setting, "--dry-run"]) == CONFIG
    assert message in capsys.readouterr().err


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # As where it is not installed: also behind tests that had it.
    for name in [n for n in sys.modules if n.startswith("openanomaly.playground.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(openanomaly.playground, "server", raising=False)
    for name in [n for n in sys.modules if n.partition(".")[0] == "streamlit"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "streamlit", None)
    assert main(["playground", "--dry-run"]) == CONFIG
    assert "pip install 'openanomaly[playground]'" in capsys.readouterr().err


def test_an_address_that_is_taken_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import socket as sockets

    with sockets.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(["playground", "--listen", address]) == CONFIG
    assert f"cannot listen on {address}" in capsys.readouterr().err
