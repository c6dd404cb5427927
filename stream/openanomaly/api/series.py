"""How many series a selector matches now: a database is asked, or a running process."""

from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp

from openanomaly.adapters.remote_write.client import read_secret
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.errors import ConfigError
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


class Nobody:
    """Where no setting says who could be asked."""

    async def count(self, pipeline: Pipeline) -> Counted:
        return Counted(None, "nothing", "set api.admin_url or pull.url: nobody can be asked for series")


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
        self._authorization()

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
        except ConfigError as exc:
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
            allow_redirects=False,  # the token is for this address
        ) as response:
            if response.status != 200:
                raise ValueError(f"it answers {response.status} {(await response.text())[:200].strip()}")
            answer: dict[str, Any] = await response.json()
            return answer

    def _authorization(self) -> dict[str, str]:
        given = self._settings.admin_token
        token = read_secret(given and given.get_secret_value(), self._settings.admin_token_file)
        return {} if token is None else {"Authorization": f"Bearer {token}"}

    @property
    def _shown(self) -> str:
        shown: str = self._settings.model_dump(include={"admin_url"})["admin_url"]
        return shown

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _words(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__
