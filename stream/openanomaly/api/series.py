"""How many series a selector matches now: a database is asked, or a running process."""

import asyncio
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp

from openanomaly.adapters.secret_files import read_secret
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.pipelines.selector import Selector
from openanomaly.core.ports.tsdb_client import TSDBClient
from openanomaly.errors import ConfigError, QueryRejectedError, SinkUnavailableError, TsdbUnavailableError
from openanomaly.settings import ApiSettings
from openanomaly.web.auth import ADMIN

_TIMEOUT_S = 30.0
"""A million series take 9 s to look through."""


@dataclass(frozen=True, slots=True)
class Counted:
    """How many there are, of what, and what to know of it; None where nobody could be asked."""

    count: int | None
    of: str
    note: str | None = None


class SeriesCounter(Protocol):
    async def count(self, pipeline: Pipeline) -> Counted:
        """How many series a pipeline would watch. That nobody answers is told, not raised."""
        ...

    async def close(self) -> None: ...


class Nobody:
    """Where no setting says who could be asked."""

    async def count(self, pipeline: Pipeline) -> Counted:
        return Counted(None, "nothing", "set api.admin_url or pull.url: nobody can be asked for series")

    async def close(self) -> None:
        pass


class AdminCounter:
    """Asks the admin API of a running process. It knows the series that its pipelines watch already."""

    def __init__(self, settings: ApiSettings) -> None:
        """
        Raises:
            ConfigError: a file cannot be read.
        """
        assert settings.admin_url is not None
        self._url = settings.admin_url.rstrip("/")
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._tls = _ssl_context(settings)
        try:
            self._authorization()
        except SinkUnavailableError as exc:
            raise ConfigError(str(exc)) from exc

    async def count(self, pipeline: Pipeline) -> Counted:
        of = f"series that pipelines of {self._shown} watch now"
        if pipeline.query is not None:
            return Counted(None, of, "a query is answered by a database: set pull.url")
        try:
            answer = await self._ask(pipeline.selector)
            series, held, of_all = (
                int(answer[name]) for name in ("series", "partitions", "partitions_of_all")
            )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError) as exc:
            return Counted(None, of, f"cannot ask api.admin_url={self._shown}: {_words(exc)}")
        except SinkUnavailableError as exc:  # of its secrets
            return Counted(None, of, str(exc))
        part = f"of {held} of {of_all} partitions: others are in other processes" if held < of_all else None
        return Counted(series, of, part)

    async def _ask(self, selector: str) -> dict[str, Any]:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S))
        async with self._session.get(
            f"{self._url}{ADMIN}series/count",
            params={"match": selector},
            headers=self._authorization(),
            ssl=self._tls,
            allow_redirects=False,  # the token is for this address
        ) as response:
            if response.status != 200:
                raise ValueError(f"it answers {response.status} {(await response.text())[:200].strip()}")
            answer: dict[str, Any] = await response.json()
            return answer

    def _authorization(self) -> dict[str, str]:
        given = self._settings.admin_token
        token = read_secret(
            given.get_secret_value() if given else None,
            self._settings.admin_token_file,
            "api.admin_token_file",
        )
        return {} if token is None else {"Authorization": f"Bearer {token}"}

    @property
    def _shown(self) -> str:
        shown: str = self._settings.model_dump(include={"admin_url"})["admin_url"]
        return shown

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _ssl_context(settings: ApiSettings) -> ssl.SSLContext | bool:
    """How the admin API shows that it is the one."""
    if settings.admin_ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=settings.admin_ca_file)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"cannot load api.admin_ca_file={settings.admin_ca_file}: {exc}") from exc


def _words(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__


class DatabaseCounter:
    """Asks a time-series database, which knows also what nobody watches yet."""

    def __init__(self, client: TSDBClient, clock: Callable[[], float] = time.time) -> None:
        self._client, self._clock = client, clock

    async def count(self, pipeline: Pipeline) -> Counted:
        of = f"series in {self._client.shown} now"
        query = f"count({pipeline.query or _selected(pipeline.selector)})"
        try:
            at_ms = int(self._clock() * 1000)
            found = await asyncio.to_thread(self._client.instant_query, query, at_ms)
        except (TsdbUnavailableError, QueryRejectedError) as exc:
            return Counted(None, of, str(exc))
        count = int(found.value.sum()) if len(found) else 0
        return Counted(count, of, "; ".join(found.warnings) or None)

    async def close(self) -> None:
        self._client.close()


def _selected(selector: str) -> str:
    """PromQL for what a selector matches; our own output is never watched."""
    # Databases want one matcher that an empty label does not pass.
    matchers = ['__name__=~".+"']
    matchers += [f"{_name(m.name)}{m.operator}{_quoted(m.value)}" for m in Selector.parse(selector).matchers]
    return f'{{{",".join(matchers)}}} unless {{for!="",__name__=~"anomaly_.*|yhat|yhat_lower|yhat_upper|y"}}'


def _name(name: str) -> str:
    return name if re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", name) else _quoted(name)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
