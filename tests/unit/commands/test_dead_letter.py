"""`openanomaly dead-letter`: what it asks for, what it prints, and how it fails."""

import argparse
import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from openanomaly.commands import dead_letter
from openanomaly.commands.admin_client import AdminClient, AdminError
from openanomaly.commands.dead_letter import table
from parts.part import HOST, free_port

API = "/api/v1/admin/dead-letters"


def letter(id_: int, **changes: Any) -> dict[str, Any]:
    fields = {
        "id": id_,
        "reason": "UnknownVersionError",
        "topic": "oa.scores",
        "partition": 3,
        "offset": 41,
        "noted_ms": 1_700_000_000_000,
        "set_aside": True,
        "detail": "ScoreFrame has version 2",
        "payload_bytes": 512,
        "payload": {"kind": "ScoreFrame", "unreadable": "ScoreFrame has version 2"},
        "obstacle": None,
        "replays": [],
    }
    return {**fields, **changes}


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    dead_letter.add_parser(parser.add_subparsers())
    return parser.parse_args(["dead-letter", *words])


class Server:
    """A process as the command sees it, with `count` letters: a real HTTP server in this process."""

    def __init__(self, count: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.letters = {i: letter(i) for i in range(count)}
        self.asked: list[tuple[str, Any]] = []
        self.headers: list[str | None] = []
        self.outcomes: dict[int, dict[str, Any]] = {}
        self.answer: web.Response | None = None
        self.port = free_port()
        self.url = f"{'https' if tls else 'http'}://{HOST}:{self.port}"
        self._tls = tls

    @contextlib.asynccontextmanager
    async def running(self) -> Any:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, HOST, self.port, ssl_context=self._tls).start()
        try:
            yield
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        self.headers.append(request.headers.get("Authorization"))
        if self.answer is not None:
            answer, self.answer = self.answer, None
            return answer
        if request.method == "POST":
            asked = await request.json()
            self.asked.append((request.path, asked))
            outcome = {"outcome": "replayed", "topic": "oa.scores", "partition": 3, "offset": 77, "why": ""}
            return web.json_response(
                {"letters": [{**outcome, "id": x, **self.outcomes.get(x, {})} for x in asked["ids"]]}
            )
        self.asked.append((request.path, dict(request.query)))
        if request.path.endswith("/payload"):
            return web.Response(body=b"\x00payload")
        if request.path != API:
            return web.json_response(self.letters[int(request.path.rpartition("/")[2])])
        before = int(request.query.get("before", 1 << 60))
        newest = sorted((x for x in self.letters if x < before), reverse=True)
        limit = int(request.query["limit"])
        return web.json_response({"letters": [self.letters[x] for x in newest[:limit]]})

    def run(self, *words: str, url: str | None = None) -> int:
        """The command's exit status."""

        async def go() -> int:
            async with self.running():
                options = parse(*words, "--url", url or self.url)
                return await asyncio.to_thread(dead_letter.main, options)

        return asyncio.run(go())


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("URL", "TOKEN", "TOKEN_FILE", "USER", "CA_FILE"):
        monkeypatch.delenv(f"OPENANOMALY_{name}", raising=False)
    return


# -- list ------------------------------------------------------------------------------------------


def test_a_table_has_a_line_for_each_letter() -> None:
    replay = {"offset": 99, "at_ms": 1_700_000_001_000}
    lines = table(
        [
            letter(12, replays=[replay]),
            letter(11, replays=[replay, replay], payload={"series": 2, "samples": 30, "pipeline": "all"}),
            letter(2, reason="crash", set_aside=False, payload=None, detail="Traceback\n  x\nBugError: no\n"),
        ],
        None,
    )
    assert [line.split()[0] for line in lines] == ["ID", "12", "11", "2"]
    at = (
        lines[0].index("STATE"),
        lines[0].index("REASON"),
        lines[0].index("PAYLOAD"),
        lines[0].index("DETAIL"),
    )
    state, reason, payload, detail = at
    assert [line[state:reason].strip() for line in lines] == ["STATE", "replayed", "replayed 2x", "noted"]
    assert [line[payload:detail].strip() for line in lines[1:]] == [
        "512 B, unreadable",
        "2 series, 30 samples, all",
        "512 B",
    ]
    assert [line[detail:] for line in lines[2:]] == ["ScoreFrame has version 2", "BugError: no"]
    assert "oa.scores[3]@41" in lines[1]


def test_a_table_is_as_wide_as_its_terminal_and_nothing_in_it_steers_that() -> None:
    lines = table([letter(1, detail="\x1b[2J\x07evil\u202e" + "x" * 500)], 100)
    assert [len(line) for line in lines if len(line) > 100] == []
    assert lines[1].endswith("…")
    assert lines[1].isprintable()


def test_the_newest_letters_are_listed_in_pages(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server(250)
    assert server.run("list", "--limit", "230", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [x["id"] for x in found] == list(range(249, 19, -1))
    assert [query.get("before") for _, query in server.asked] == [None, "150", "50"]
    assert server.run("list", "--limit", "2") == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_filters_are_handed_on(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server()
    now_ms = int(time.time() * 1000)
    assert server.run("list", "--topic", "due", "--reason", "crash", "--since", "2h", "--noted") == 0
    assert capsys.readouterr().out == "no dead letters\n"
    ((_, query),) = server.asked
    since_ms = int(query.pop("since_ms"))
    assert query == {"topic": "due", "reason": "crash", "set_aside": "false", "limit": "100"}
    assert since_ms >= now_ms - 7_200_000


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [("2023-11-14T22:13:20+00:00", 1_700_000_000_000), ("2023-11-14T22:13:20Z", 1_700_000_000_000)],
)
def test_a_time_can_be_given(text: str, expected_ms: int) -> None:
    assert parse("list", "--since", text).since == expected_ms


@pytest.mark.parametrize(
    "words",
    [
        ["list", "--since", "yesterday"],
        ["list", "--limit", "0"],
        ["list", "--noted", "--set-aside"],
        ["show"],
        ["show", "x"],
        ["replay", "-1"],
        ["replay", "²"],
        [],
    ],
)
def test_what_is_no_request_is_refused_before_anybody_is_asked(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(*words)
    assert caught.value.code == 2


# -- show ------------------------------------------------------------------------------------------


def test_a_letter_is_shown_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server(1)
    server.letters[0] |= {
        "detail": "Traceback (most recent call last):\n  File x\x1b[31m\nBugError: no\n",
        "obstacle": "it is not whole",
        "replays": [{"offset": 99, "at_ms": 1_700_000_001_000}],
    }
    assert server.run("show", "0") == 0
    shown = capsys.readouterr().out
    assert "record:    oa.scores[3] offset 41\n" in shown
    assert "replay 1:  offset 99, 2023-11-1" in shown
    assert "no replay: it is not whole\n" in shown
    assert shown.endswith("\n\nTraceback (most recent call last):\n  File x [31m\nBugError: no\n")


def test_a_payload_is_written_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "payload"
    assert Server(1).run("show", "0", "--payload", str(file)) == 0
    assert file.read_bytes() == b"\x00payload"
    assert Server(1).run("show", "0", "--payload", str(tmp_path / "no" / "such")) == 1
    assert "No such file or directory" in capsys.readouterr().err


# -- replay ----------------------------------------------------------------------------------------


def test_letters_are_replayed_oldest_first_and_each_is_answered_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = Server(5)
    server.outcomes[3] = {"outcome": "refused", "why": "it is not whole: first 1 of 2 bytes kept"}
    assert server.run("replay", "3", "1", "1") == 1
    assert server.asked == [(f"{API}/replay", {"ids": [1, 3], "force": False, "dry_run": False})]
    assert capsys.readouterr().out.splitlines() == [
        "1: replayed to oa.scores[3] offset 77",
        "3: not replayed, refused: it is not whole: first 1 of 2 bytes kept",
        "1 of 2 replayed",
    ]


def test_all_that_can_be_replayed_is(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server(230)
    server.letters[7]["obstacle"] = "it is not whole"
    server.letters[8]["replays"] = [{"offset": 1, "at_ms": 1}]
    assert server.run("replay", "--all", "--topic", "scores") == 0
    posted = [asked["ids"] for path, asked in server.asked if path.endswith("replay")]
    assert [len(ids) for ids in posted] == [100, 100, 28]
    assert sum(posted, []) == [i for i in range(230) if i not in (7, 8)]  # noqa: RUF017 (few)
    listed = [asked for path, asked in server.asked if path == API]
    assert all((x["topic"], x["set_aside"]) == ("scores", "true") for x in listed)
    assert capsys.readouterr().out.splitlines()[0] == (
        "passed over: 2 that cannot be replayed, or were before"
    )


def test_with_force_also_what_was_replayed_before() -> None:
    server = Server(2)
    server.letters[1]["replays"] = [{"offset": 1, "at_ms": 1}]
    assert server.run("replay", "--all", "--force") == 0
    assert server.asked[-1] == (f"{API}/replay", {"ids": [0, 1], "force": True, "dry_run": False})


def test_a_dry_run_says_what_would_be_done(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server(1)
    server.outcomes[0] = {"outcome": "possible", "offset": None}
    assert server.run("replay", "0", "--dry-run") == 0
    assert server.asked[0][1]["dry_run"] is True
    assert capsys.readouterr().out.splitlines() == [
        "0: would be replayed to oa.scores[3]",
        "1 of 1 could be replayed",
    ]


def test_a_broker_that_takes_no_more_ends_the_replay(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server(150)
    server.outcomes[99] = {"outcome": "failed", "why": "the disk is full"}
    assert server.run("replay", "--all") == 1
    assert sum(path.endswith("replay") for path, _ in server.asked) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "99 of 150 replayed"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["replay"], "name the letters by their ids, or say --all"),
        (["replay", "1", "--all"], "name the letters by their ids, or say --all"),
        (["replay", "1", "--topic", "due"], "go with --all"),
    ],
)
def test_a_replay_says_clearly_of_what(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server(2)
    assert server.run(*words) == 1
    assert message in capsys.readouterr().err
    assert server.asked == []


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"status": 401, "text": "authentication required"}, "its credentials were not accepted (401)"),
        ({"status": 403, "text": "the admin API answers this machine only"}, "this machine only (403)"),
        ({"status": 404, "text": "404: Not Found"}, "an older release, or not OpenAnomaly"),
        ({"status": 404, "text": "there is no dead letter 0\n"}, "there is no dead letter 0 (404)"),
        ({"status": 503, "text": "cannot read oa.dead-letter"}, "cannot read oa.dead-letter (503)"),
        ({"status": 302, "headers": {"Location": "http://127.0.0.1:1/"}}, "from another place (302)"),
        ({"status": 200, "text": "<html>hello"}, "the answer is not JSON: <html>hello"),
        ({"status": 500, "text": "\x1b[2Jsecret"}, "[2Jsecret (500)"),
    ],
)
def test_an_answer_that_is_none_is_said_in_a_line(
    answer: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server(1)
    server.answer = web.Response(**answer)
    assert server.run("show", "0", "--token", "hunter2") == 1
    said = capsys.readouterr().err
    assert message in said
    assert "\x1b" not in said
    assert "hunter2" not in said
    assert said.count("\n") == 1


def test_without_credentials_it_says_how_to_give_them(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server()
    server.answer = web.Response(status=401)
    assert server.run("list") == 1
    assert "it asks for credentials (401); give --token-file or --user" in capsys.readouterr().err


def test_a_process_that_does_not_run_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert dead_letter.main(parse("list", "--url", f"http://{HOST}:{free_port()}")) == 1
    assert "connection refused; is it running" in capsys.readouterr().err


# -- credentials and TLS ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "environ", "header"),
    [
        ([], {}, None),
        (["--token", "a"], {"TOKEN": "b"}, "Bearer a"),
        ([], {"TOKEN": "b"}, "Bearer b"),
        (["--token-file", "{file}"], {}, "Bearer in the file"),
        ([], {"TOKEN_FILE": "{file}"}, "Bearer in the file"),
        (["--user", "me:pa:ss"], {}, "Basic bWU6cGE6c3M="),
        ([], {"USER": "me:pa:ss"}, "Basic bWU6cGE6c3M="),
    ],
)
def test_credentials_come_from_flags_or_variables(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    environ: dict[str, str],
    header: str | None,
) -> None:
    file = tmp_path / "token"
    file.write_text("in the file\n")
    for name, value in environ.items():
        monkeypatch.setenv(f"OPENANOMALY_{name}", value.format(file=file))
    server = Server()
    assert server.run("list", *(word.format(file=file) for word in words)) == 0
    assert server.headers == [header]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--url", "localhost:9201"], "expected http://HOST:PORT"),
        (["--url", "http://me:hunter2@localhost"], "credentials do not belong into it"),
        (["--user", "hunter2"], "expected NAME:PASSWORD"),
        (["--token", "hunter2\nX: y"], "has characters that no header takes"),
        (["--token", ""], "the token is empty"),
        (["--token-file", "/no/such"], "cannot read --token-file /no/such: No such file"),
        (["--ca-file", "/no/such"], "cannot load --ca-file /no/such: No such file"),
    ],
)
def test_options_that_cannot_be_used_are_refused_without_secrets(words: list[str], message: str) -> None:
    with pytest.raises(AdminError) as caught:
        AdminClient(parse("list", *words))
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_certificate_is_trusted_by_its_authority_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority, other = trustme.CA(), trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(HOST).configure_cert(context)
    for ca, name in ((authority, "ours"), (other, "other")):
        ca.cert_pem.write_to_path(str(tmp_path / name))
    server = Server(1, tls=context)
    assert server.run("list", "--ca-file", str(tmp_path / "ours")) == 0
    assert server.run("list", "--ca-file", str(tmp_path / "other")) == 1
    assert "its certificate is not trusted" in capsys.readouterr().err
    assert len(server.asked) == 1
