"""Whom `openanomaly probe` shows its credentials, and what it says of those that cannot be read."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from openanomaly import cli

Asked = list[tuple[str, str | None]]
"""Path and credentials of each request."""


class _Handler(BaseHTTPRequestHandler):
    """Sends everybody to another place of its own."""

    asked: Asked

    def do_POST(self) -> None:
        self.asked.append((self.path, self.headers["Authorization"]))
        self.send_response(302)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    do_GET = do_POST  # noqa: N815 (what urllib makes of a request that is sent on)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, Asked]]:
    asked: Asked = []
    handler = type("Handler", (_Handler,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def probe(tmp_path: Path, url: str, auth: dict[str, str]) -> int:
    config = {"web": {"auth": auth}, "pipelines": [{"name": "default"}]}
    (tmp_path / "c.yaml").write_text(json.dumps(config))
    words = ["probe", "--config", str(tmp_path / "c.yaml"), "--receiver", url, "--timeout", "0"]
    return cli.main(words)


@pytest.mark.parametrize("kind", ["bearer", "basic"])
def test_credentials_go_to_the_address_that_was_given_and_nowhere_else(
    tmp_path: Path, elsewhere: tuple[str, Asked], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url, asked = elsewhere
    (tmp_path / "secret").write_text("s3cret\n")
    file = str(tmp_path / "secret")
    basic = {"username": "me", "password_file": file}
    assert probe(tmp_path, url, {"bearer_token_file": file} if kind == "bearer" else basic) == 1
    basic_words = f"Basic {base64.b64encode(b'me:s3cret').decode()}"
    assert asked == [("/api/v1/write", "Bearer s3cret" if kind == "bearer" else basic_words)]
    said = capsys.readouterr()
    assert "answers 302" in said.err
    assert "s3cret" not in said.out + said.err


def test_a_secret_that_cannot_be_read_is_a_wrong_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "none")
    assert probe(tmp_path, "http://127.0.0.1:1", {"bearer_token_file": missing}) == 2
    assert f"cannot read web.auth.bearer_token_file={missing}" in capsys.readouterr().err
