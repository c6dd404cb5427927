"""Asks the admin API of a running process. Credentials are sent to it alone, and never shown."""

import argparse
import base64
import json
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openanomaly.errors import OpenAnomalyError

PREFIX = "OPENANOMALY_"
_DEFAULT_URL = "http://localhost:9201"
_API = "/api/v1/admin/"
_TIMEOUT_S = 120.0
_SHOWN = 500


class AdminError(OpenAnomalyError):
    """What was asked for could not be had."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Where the process is, and who we are."""
    group = parser.add_argument_group("the running process")
    group.add_argument(
        "--url", metavar="URL", help=f"its web server; {_DEFAULT_URL}, or the variable {PREFIX}URL"
    )
    group.add_argument("--token", metavar="TOKEN", help=f"bearer token; better {PREFIX}TOKEN, or a file")
    group.add_argument("--token-file", metavar="FILE", help=f"file with the token, or {PREFIX}TOKEN_FILE")
    group.add_argument("--user", metavar="NAME:PASSWORD", help=f"basic authentication; better {PREFIX}USER")
    group.add_argument("--ca-file", metavar="FILE", help=f"who signed its certificate, or {PREFIX}CA_FILE")


class AdminClient:
    """One process, asked over HTTP."""

    def __init__(self, options: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> None:
        """Read what `add_options` added, and the variables.

        Raises:
            AdminError: a file cannot be read, or the URL is none.
        """

        def given(name: str) -> str | None:
            flag: str | None = getattr(options, name)
            return flag if flag is not None else environ.get(PREFIX + name.upper())

        self.url = (given("url") or _DEFAULT_URL).rstrip("/")
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise AdminError(
                f"--url: expected http://HOST:PORT or https://HOST:PORT, found {_plain(self.url)}"
            )
        if "@" in parts.netloc:
            raise AdminError("--url: credentials do not belong into it; use --token-file or --user")
        self._authorization = _authorization(given)
        self._opener = urllib.request.build_opener(Stay(), *_https(given("ca_file")))

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """The JSON of an answer.

        Raises:
            AdminError: there is no answer, or it says no.
        """
        return _json(self.read(path, query))

    def post(self, path: str, content: Any) -> Any:
        """The same for a request with a body."""
        return _json(self._ask(path, json.dumps(content).encode()))

    def read(self, path: str, query: Mapping[str, str] | None = None) -> bytes:
        """The bytes of an answer."""
        return self._ask(path + ("?" + urllib.parse.urlencode(query) if query else ""), None)

    def _ask(self, path: str, body: bytes | None) -> bytes:
        request = urllib.request.Request(self.url + _API + path, body, {"Accept": "application/json"})
        if body is not None:
            request.add_header("Content-Type", "application/json")
        if self._authorization is not None:
            # Not for whom it might send us on to.
            request.add_unredirected_header("Authorization", self._authorization)
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S) as answer:
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as exc:
            with exc:
                raise AdminError(self._refused(exc, path)) from None  # its text could hold the request
        except urllib.error.URLError as exc:
            raise AdminError(f"cannot ask {self.url}: {_reason(exc.reason)}") from None
        except (OSError, ValueError) as exc:
            raise AdminError(f"cannot ask {self.url}: {_reason(exc)}") from None

    def _refused(self, exc: urllib.error.HTTPError, path: str) -> str:
        words = _plain(exc.read(4096).decode(errors="replace"))
        if exc.code == 401:
            hint = "its credentials were not accepted" if self._authorization else "it asks for credentials"
            return f"{self.url}: {hint} (401); give --token-file or --user"
        if exc.code == 404 and words == "404: Not Found":
            name = path.partition("?")[0]
            return f"{self.url} does not know {_API}{name} (404): an older release, or not OpenAnomaly"
        if 300 <= exc.code < 400:
            return f"{self.url} answers from another place ({exc.code}); give its own address with --url"
        return f"{self.url}: {words or exc.reason} ({exc.code})"


class Stay(urllib.request.HTTPRedirectHandler):
    """Goes nowhere else: what is asked and shown is for this process."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _authorization(given: Any) -> str | None:
    token, file, user = given("token"), given("token_file"), given("user")
    if file is not None and token is None:
        try:
            token = Path(file).read_text().strip()
        except (OSError, UnicodeDecodeError) as exc:
            words = exc.strerror if isinstance(exc, OSError) else "it is not text"
            raise AdminError(f"cannot read --token-file {file}: {words}") from None
    if token is not None:
        if not token.isascii() or not token.isprintable() or not token:
            raise AdminError("the token is empty, or has characters that no header takes")
        return f"Bearer {token}"
    if user is not None:
        if ":" not in user:
            raise AdminError("--user: expected NAME:PASSWORD")
        return f"Basic {base64.b64encode(user.encode()).decode()}"
    return None


def _https(ca_file: str | None) -> list[urllib.request.HTTPSHandler]:
    if ca_file is None:
        return []
    try:
        return [urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca_file))]
    except (OSError, ssl.SSLError) as exc:
        raise AdminError(f"cannot load --ca-file {ca_file}: {_reason(exc)}") from None


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        raise AdminError(
            f"the answer is not JSON: {_plain(content[:_SHOWN].decode(errors='replace'))}"
        ) from None


def _reason(error: Any) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}); give --ca-file"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused; is it running, and is this its address (web.listen)?"
    return _plain(getattr(error, "strerror", None) or str(error) or repr(error))


def _plain(text: str) -> str:
    """For a terminal: one line, without what would steer it."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[:_SHOWN]).split())
