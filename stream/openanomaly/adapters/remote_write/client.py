"""Sends remote-write requests to one target until it has taken them or refused them for good."""

import asyncio
import base64
import email.utils
import logging
import os
import random
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

from openanomaly.adapters.remote_write.encode import HEADERS, pack
from openanomaly.adapters.secret_files import read_secret
from openanomaly.errors import ConfigError, RejectedError, RequestTooLargeError, SinkUnavailableError

log = logging.getLogger(__name__)

_HEADERS = {**HEADERS, "User-Agent": "openanomaly", "Accept-Encoding": "identity"}
_REFUSED = (400, 409, 413, 422)
"""Answers about what is in a request. Any other refusal is about the address, the credentials or the
state of the target: a person or time heals it, and the same request passes then."""
_PATH = "/api/v1/write"
"""Where Prometheus and VictoriaMetrics take remote-write: for an address that names no path."""
_WORDS_LIMIT = 500
_RETRY_AFTER_LIMIT_S = 300.0
_REMIND_S = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go and how; names are those of the `sink` settings."""

    url: str
    timeout_s: float = 30.0
    backoff_min_s: float = 0.1
    backoff_max_s: float = 30.0
    bearer_token: str | None = field(default=None, repr=False)
    bearer_token_file: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


Observe = Callable[[str, float], None]
"""Called after each request with the answer's status, or `error` for none, and its seconds."""


class RemoteWriteClient:
    """One target. Credentials and certificates in files are read again when they change.

    Attributes:
        is_up: whether the target answered the last request as one that works does.
        error: what it said when it did not.
        shown: the address without secrets.
    """

    def __init__(self, target: Target, observe: Observe = lambda code, seconds: None) -> None:
        """Raises ConfigError: a file cannot be read, or settings contradict each other."""
        try:
            url = URL(target.url)
        except ValueError as exc:
            raise ConfigError(f"sink.url is no address: {exc}") from exc
        self.is_up = True
        self.error: str | None = None
        self._target = target
        if url.path in ("", "/"):
            url = url.with_path(_PATH).with_query(url.query)
        self._url = url.with_user(None)
        self.shown = str(self._url.with_query(None))
        self._username = target.username or url.user
        self._password = target.password if target.username else url.password
        self._observe = observe
        self._session: aiohttp.ClientSession | None = None
        self._context: ssl.SSLContext | None = None
        self._files: tuple[float, ...] = ()
        self._reminded_s = 0.0
        self._has_taken = False
        self._check()

    def _check(self) -> None:
        target = self._target
        if (target.bearer_token or target.bearer_token_file) and self._username:
            raise ConfigError(
                "sink.bearer_token and sink.username are both set: the target takes one of them"
            )
        if self._username and self._password is None and target.password_file is None:
            raise ConfigError(f"sink.username={self._username} needs sink.password or sink.password_file")
        if ":" in (self._username or ""):
            raise ConfigError(
                f"sink.username={self._username!r} has a colon, which basic auth does not allow"
            )
        if target.key_file and not target.cert_file:
            raise ConfigError(f"sink.key_file={target.key_file} needs sink.cert_file")
        for name, value in target.headers.items():
            if not f"{name}{value}".isprintable():
                raise ConfigError(f"sink.headers: {name!r} is no line of text")
        try:
            self._authorization()
            self._tls()
        except SinkUnavailableError as exc:
            raise ConfigError(str(exc)) from exc

    async def send(self, body: bytes) -> None:
        """Return once the target has taken `body`, however long that is.

        Raises:
            RejectedError: it never will; the message has the target's words.
        """
        failures = 0
        while True:
            try:
                await self._offer(body)
            except SinkUnavailableError as exc:
                self._went_down(str(exc))
                low_s, high_s = self._target.backoff_min_s, self._target.backoff_max_s
                await asyncio.sleep(backoff_s(failures, low_s, high_s, exc.retry_after_s))
                failures += 1
            except RejectedError:
                self._came_up()
                raise
            else:
                self._came_up()
                return

    async def _offer(self, body: bytes) -> None:
        try:
            await self._post(body)
        except RejectedError:
            # Some servers answer 400 behind a wrong path. Who has taken nothing yet, and refuses a
            # request without samples too, refuses the address and not what we say.
            if not self._has_taken:
                await self._ask_whether_it_takes_anything()
            raise
        self._has_taken = True

    async def _ask_whether_it_takes_anything(self) -> None:
        try:
            await self._post(pack([]))
        except RejectedError as exc:
            raise SinkUnavailableError(f"{exc} (even without samples; is this its write address?)") from exc

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _went_down(self, error: str) -> None:
        now_s = time.monotonic()
        if self.is_up or now_s - self._reminded_s >= _REMIND_S:
            log.warning("scores wait: %s", error)
            self._reminded_s = now_s
        self.is_up, self.error = False, error

    def _came_up(self) -> None:
        if not self.is_up:
            log.info("%s takes scores again", self.shown)
        self.is_up, self.error = True, None

    # -- one request ---------------------------------------------------------------------------

    async def _post(self, body: bytes) -> None:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=self._target.timeout_s)
            self._session = aiohttp.ClientSession(timeout=timeout, auto_decompress=False)
        headers = {**_HEADERS, **self._authorization(), **self._target.headers}
        started_s, code = time.monotonic(), "error"
        try:
            async with self._session.post(
                self._url, data=body, headers=headers, ssl=self._tls(), allow_redirects=False
            ) as answer:
                code = str(answer.status)
                if answer.status >= 300:
                    words = await answer.content.read(_WORDS_LIMIT)
                    raise self._failure(answer, " ".join(words.decode(errors="replace").split()))
        except (aiohttp.ClientError, OSError) as exc:
            what = f"no answer within {self._target.timeout_s:g} s" if isinstance(exc, TimeoutError) else exc
            raise SinkUnavailableError(f"{self.shown} cannot be reached: {what}") from exc
        finally:
            self._observe(code, time.monotonic() - started_s)

    def _failure(self, answer: aiohttp.ClientResponse, words: str) -> Exception:
        text = f"{self.shown} answers {answer.status}: {words or answer.reason}"
        if answer.status in _REFUSED:
            return RequestTooLargeError(text) if answer.status == 413 else RejectedError(text)
        if answer.status in (401, 403):
            text += " (sink.bearer_token, sink.username and sink.password; read again from their files)"
        return SinkUnavailableError(text, retry_after_s(answer.headers.get("Retry-After")))

    def _authorization(self) -> dict[str, str]:
        target = self._target
        token = read_secret(target.bearer_token, target.bearer_token_file, "sink.bearer_token_file")
        if token is not None:
            return {"Authorization": f"Bearer {token}"}
        if self._username:
            password = read_secret(self._password, target.password_file, "sink.password_file")
            pair = base64.b64encode(f"{self._username}:{password}".encode()).decode()
            return {"Authorization": f"Basic {pair}"}
        return {}

    def _tls(self) -> ssl.SSLContext | bool:
        """The client's side of TLS; a new one, and with it new connections, when a file has changed."""
        target = self._target
        names = [name for name in (target.ca_file, target.cert_file, target.key_file) if name]
        if not names:
            return True
        try:
            files = tuple(os.stat(name).st_mtime_ns for name in names)
            if self._context is None or files != self._files:
                context = ssl.create_default_context(cafile=target.ca_file)
                if target.cert_file:
                    context.load_cert_chain(target.cert_file, target.key_file)
                self._context, self._files = context, files
        except (OSError, ssl.SSLError) as exc:
            raise SinkUnavailableError(
                f"cannot load sink.ca_file, sink.cert_file or sink.key_file ({', '.join(names)}): {exc}"
            ) from exc
        return self._context


def backoff_s(failures: int, low_s: float, high_s: float, retry_after_s: float = 0.0) -> float:
    """Seconds to the next try: random, so that many senders do not come back together.

    What the target asks for is granted, up to five minutes.
    """
    own_s = random.uniform(low_s, min(high_s, low_s * 2.0 ** min(failures + 1, 60)))
    return max(own_s, min(retry_after_s, _RETRY_AFTER_LIMIT_S))


def retry_after_s(value: str | None) -> float:
    """Seconds that a Retry-After header asks for, as a number or as a date; 0 for none."""
    if value is None:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0
