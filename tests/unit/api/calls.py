"""The API in this process: requests to it, and what it answers."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from openanomaly.adapters.yaml_store import YamlAdapter
from openanomaly.api.app import create
from openanomaly.api.series import Counted, Nobody, SeriesCounter
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.ports.config_store import ConfigStore, Definitions, Stored
from openanomaly.core.ports.tsdb_client import TSDBClient
from openanomaly.errors import StoreUnavailableError
from openanomaly.settings import Settings

PIPELINES = "/api/v1/pipelines"


class Api:
    """Calls one application, each in an event loop of its own."""

    def __init__(
        self,
        store: ConfigStore | Path,
        counter: SeriesCounter | None = None,
        client: TSDBClient | None = None,
        caller: str = "127.0.0.1",
        presets: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        if isinstance(store, Path):
            store = YamlAdapter(str(store))
        self.store, self._caller = store, caller
        made = Settings.model_validate({"api": settings, "presets": presets})
        self._app = create(made, store, counter or Nobody(), client)

    def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        return asyncio.run(self.call(method, path, **options))

    async def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        # An error that nobody has thought of is raised again for the server's log: not here.
        transport = httpx.ASGITransport(self._app, raise_app_exceptions=False, client=(self._caller, 5))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:9202") as client:
            return await client.request(method, path, **options)


class Away:
    """A store that cannot be reached."""

    shown = "mongodb://away/x"

    async def read(self) -> Definitions:
        raise StoreUnavailableError(f"cannot reach {self.shown}")

    async def create(self, pipeline: Pipeline) -> Stored:
        raise StoreUnavailableError(f"cannot reach {self.shown}")

    async def replace(self, pipeline: Pipeline, version: str | None) -> Stored:
        raise StoreUnavailableError(f"cannot reach {self.shown}")

    async def delete(self, name: str, version: str | None) -> None:
        raise StoreUnavailableError(f"cannot reach {self.shown}")

    async def watch(self) -> AsyncIterator[Definitions]:
        raise StoreUnavailableError(f"cannot reach {self.shown}")
        yield

    async def close(self) -> None:
        pass


class Broken(Away):
    """A store with a bug."""

    async def read(self) -> Definitions:
        raise KeyError("hunter2")


class Knows:
    """Knows how many series there are."""

    def __init__(self, count: int | None) -> None:
        self._count = count

    async def count(self, pipeline: Pipeline) -> Counted:
        return Counted(self._count, "series of a test", None if self._count else "nobody answers")

    async def close(self) -> None:
        pass
