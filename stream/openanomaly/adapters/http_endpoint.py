"""One HTTP server that is asked from threads: credentials, TLS, time limits, tries. requests lives here."""

import base64
import os
import ssl
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, ReadTimeoutError

from openanomaly.adapters.remote_write.client import Target, backoff_s, retry_after_s
from openanomaly.adapters.secret_files import read_secret
from openanomaly.errors import ConfigError, SinkUnavailableError, TsdbUnavailableError

_TRANSIENT = (408, 425, 429)
"""Besides 5xx. Any other refusal is about the address or the credentials: a person heals it, soon or not."""
_CHUNK_BYTES = 256 << 10
_WORDS_LIMIT = 500
_CONNECTIONS = 32

Observe = Callable[[str, str, float], None]
"""Called after each request with what it was, the answer's status or `error` for none, and its seconds."""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes

    @property
    def words(self) -> str:
        return " ".join(self.body[:_WORDS_LIMIT].decode(errors="replace").split())


class OverLimitError(Exception):
    """An answer has more bytes than are taken."""


class _PassingError(TsdbUnavailableError):
    """No usable answer, and the next try may have one."""

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class HttpEndpoint:
    """Requests to one address. Credentials and certificates in files are read again when they change.

    Attributes:
        shown: the address without secrets.
    """

    def __init__(self, target: Target, group: str, retries: int, observe: Observe) -> None:
        """`group` is where its settings are: errors name them.

        Raises:
            ConfigError: a file cannot be read, or settings contradict each other.
        """
        parts = urlsplit(target.url)
        host = parts.netloc.rpartition("@")[2]
        self._base = urlunsplit(parts._replace(netloc=host, path=parts.path.rstrip("/")))
        self.shown = urlunsplit(parts._replace(netloc=host, query="", fragment=""))
        self._target = target
        self._group = group
        self._retries = retries
        self._observe = observe
        self._username = target.username or (unquote(parts.username) if parts.username else None)
        from_url = unquote(parts.password) if parts.password is not None else None
        self._password = target.password if target.username else from_url
        self._lock = threading.Lock()
        self._session: requests.Session | None = None
        self._files: tuple[float, ...] = ()
        self._closed = threading.Event()
        if (target.bearer_token or target.bearer_token_file) and self._username:
            raise ConfigError(f"{group}.bearer_token and {group}.username are both set: one of them is shown")
        if self._username and self._password is None and target.password_file is None:
            raise ConfigError(f"{group}.username={self._username} needs {group}.password or password_file")
        if target.key_file and not target.cert_file:
            raise ConfigError(f"{group}.key_file={target.key_file} needs {group}.cert_file")
        try:
            self._authorization()
            self._connected()
        except TsdbUnavailableError as exc:
            raise ConfigError(str(exc)) from exc

    def close(self) -> None:
        """Let go of connections; who waits for a next try, or reads an answer, ends as unavailable."""
        self._closed.set()
        with self._lock:
            if self._session is not None:
                self._session.close()

    def post(
        self,
        what: str,
        path: str,
        content: Mapping[str, str] | bytes,
        headers: Mapping[str, str],
        limit_bytes: int,
        refused: Collection[int],
    ) -> Reply:
        """The answer of `path` below the address, if it is 2xx or one of `refused`; several tries.

        Raises:
            TsdbUnavailableError: there was none within the tries.
            OverLimitError: it is longer than `limit_bytes`.
        """
        failures = 0
        while True:
            try:
                return self._try(what, path, content, headers, limit_bytes, refused)
            except _PassingError as exc:
                if failures >= self._retries:
                    raise
                low_s, high_s = self._target.backoff_min_s, self._target.backoff_max_s
                if self._closed.wait(backoff_s(failures, low_s, high_s, exc.wait_s)):
                    raise
                failures += 1

    def _try(
        self,
        what: str,
        path: str,
        content: Mapping[str, str] | bytes,
        headers: Mapping[str, str],
        limit_bytes: int,
        refused: Collection[int],
    ) -> Reply:
        all_headers = {
            "User-Agent": "openanomaly",
            **headers,
            **self._authorization(),
            **self._target.headers,
        }
        started_s, code = time.monotonic(), "error"
        try:
            with self._connected().post(
                self._address(path),
                data=content,
                headers=all_headers,
                timeout=self._target.timeout_s,
                allow_redirects=False,
                stream=True,
            ) as answer:
                body = self._read(answer, limit_bytes, started_s + self._target.timeout_s)
                code = str(answer.status_code)
        except (requests.RequestException, HTTPError, OSError, ValueError) as exc:
            self._check_open()
            late = isinstance(exc, requests.Timeout | ReadTimeoutError | TimeoutError)
            late_text = f"no answer within {self._target.timeout_s:g} s ({self._group}.timeout_s)"
            # The reason alone: around it is the whole address.
            why = late_text if late else getattr(exc.args[0] if exc.args else None, "reason", exc)
            raise _PassingError(f"{self.shown} cannot be reached: {why}") from exc
        finally:
            self._observe(what, code, time.monotonic() - started_s)
        reply = Reply(answer.status_code, body)
        if reply.status < 300 or reply.status in refused:
            return reply
        text = f"{self.shown} answers {reply.status}: {reply.words or answer.reason}"
        if reply.status >= 500 or reply.status in _TRANSIENT:
            raise _PassingError(text, retry_after_s(answer.headers.get("Retry-After")))
        if reply.status in (401, 403):
            text += f" ({self._group}.bearer_token, {self._group}.username; read again from their files)"
        raise TsdbUnavailableError(text)

    def _read(self, answer: requests.Response, limit_bytes: int, end_s: float) -> bytes:
        body = bytearray()
        # `iter_content` would wait for a full piece, however slowly it comes.
        while chunk := answer.raw.read1(_CHUNK_BYTES, decode_content=True):
            body += chunk
            if len(body) > limit_bytes:
                raise OverLimitError
            if time.monotonic() > end_s:  # the library's limit is for each piece
                raise requests.Timeout
            self._check_open()
        return bytes(body)

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise TsdbUnavailableError(f"{self.shown} is not asked any more: the process is stopping")

    def _address(self, path: str) -> str:
        base, question, query = self._base.partition("?")
        return f"{base.rstrip('/')}{path}{question}{query}"

    def _authorization(self) -> dict[str, str]:
        target, group = self._target, self._group
        try:
            token = read_secret(target.bearer_token, target.bearer_token_file, f"{group}.bearer_token_file")
            if token is not None:
                return {"Authorization": f"Bearer {token}"}
            if not self._username:
                return {}
            password = read_secret(self._password, target.password_file, f"{group}.password_file")
        except SinkUnavailableError as exc:
            raise TsdbUnavailableError(str(exc)) from exc
        pair = base64.b64encode(f"{self._username}:{password}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}

    def _connected(self) -> requests.Session:
        """Connections; new ones when a file of certificates has changed."""
        target = self._target
        names = [name for name in (target.ca_file, target.cert_file, target.key_file) if name]
        with self._lock:
            try:
                files = tuple(os.stat(name).st_mtime_ns for name in names)
                if self._session is None or files != self._files:
                    context = ssl.create_default_context(cafile=target.ca_file)
                    if target.cert_file:
                        context.load_cert_chain(target.cert_file, target.key_file)
                    session = requests.Session()
                    # Neither proxies nor passwords come from the environment: settings say it all.
                    session.trust_env = False
                    session.mount("https://", _Tls(context))
                    session.mount("http://", HTTPAdapter(pool_maxsize=_CONNECTIONS))
                    self._session, self._files = session, files
            except (OSError, ssl.SSLError) as exc:
                raise TsdbUnavailableError(
                    f"cannot load {self._group}.ca_file, cert_file or key_file ({', '.join(names)}): {exc}"
                ) from exc
            return self._session


class _Tls(HTTPAdapter):
    """The system's authorities or ours, decided by the context alone: requests would add its own list."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(pool_maxsize=_CONNECTIONS)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **options)

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        pass
