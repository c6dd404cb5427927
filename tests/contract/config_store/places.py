"""Where definitions are kept, seen from outside of the adapters: by hand, and with outages."""

import asyncio
import contextlib
import functools
import gc
import os
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Protocol

import uvloop
import yaml
from pymongo import MongoClient

from openanomaly.adapters.stores import make_store
from openanomaly.core.ports.config_store import ConfigStore, Definitions
from openanomaly.settings import Settings
from parts.relay import Relay
from waiting import until

POLL_S = 0.05
_Test = Callable[..., Coroutine[Any, Any, None]]


class Place(Protocol):
    """Keeps what stores read and write."""

    def url(self) -> str: ...

    def make(self) -> ConfigStore:
        """Another store of the same definitions."""
        ...

    def put(self, name: str, definition: dict[str, Any]) -> None:
        """Write a definition by hand, whatever was there."""
        ...

    def drop(self, name: str) -> None:
        """Remove one by hand."""
        ...

    def away(self) -> contextlib.AbstractContextManager[None]:
        """The place cannot be reached; what is in it can still be changed by hand."""
        ...


class _Yaml:
    beside: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self._home = self.path = path

    def url(self) -> str:
        return str(self._home)

    def make(self) -> ConfigStore:
        return make_store(self.url(), POLL_S, self.beside)

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        self.path = self._home.with_name("aside")
        self._home.rename(self.path)
        try:
            yield
        finally:
            self.path.rename(self._home)
            self.path = self._home


def write(path: Path, content: Any) -> None:
    """Replace a YAML file as careful editors do."""
    part = path.with_name(f".{path.name}~")
    part.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    os.replace(part, path)


class YamlFile(_Yaml):
    """A list in a file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "pipelines.yaml")
        self._begin()

    def _begin(self) -> None:
        self.path.write_text("# ours\npipelines: []\n")

    def _change(self, name: str, definition: dict[str, Any] | None) -> None:
        content = yaml.safe_load(self.path.read_text())
        kept = [one for one in content["pipelines"] or () if one["name"] != name]
        content["pipelines"] = kept if definition is None else [*kept, definition]
        write(self.path, content)

    def put(self, name: str, definition: dict[str, Any]) -> None:
        self._change(name, {"name": name, **definition})

    def drop(self, name: str) -> None:
        self._change(name, None)


class SettingsFile(YamlFile):
    """The list in the file of the settings."""

    beside = tuple(Settings.model_fields)

    def _begin(self) -> None:
        self.path.write_text("log: {level: debug}\npipelines:\nweb:\n  listen: :9300\n")


class Folder(_Yaml):
    """A file each."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "pipelines")
        self.path.mkdir()

    def _file(self, name: str) -> Path:
        for file in self.path.glob("*.yaml"):
            if yaml.safe_load(file.read_text()).get("name") == name:
                return file
        return self.path / f"by hand {len(list(self.path.iterdir()))}.yaml"

    def put(self, name: str, definition: dict[str, Any]) -> None:
        write(self._file(name), {"name": name, **definition})

    def drop(self, name: str) -> None:
        self._file(name).unlink()


class Mongo:
    """Documents on a server, behind a network that can be cut."""

    def __init__(self, relay: Relay, client: "MongoClient[dict[str, Any]]", database: str) -> None:
        self._relay, self._database = relay, database
        self.collection = client[database]["ours"]

    def url(self) -> str:
        return f"mongodb://127.0.0.1:{self._relay.port}/{self._database}?collection=ours"

    def make(self, options: str = "&serverSelectionTimeoutMS=300") -> ConfigStore:
        return make_store(self.url() + options, POLL_S)

    def put(self, name: str, definition: dict[str, Any]) -> None:
        self.collection.replace_one({"_id": name}, {"definition": definition}, upsert=True)

    def drop(self, name: str) -> None:
        self.collection.delete_one({"_id": name})

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        self._relay.cut()
        try:
            yield
        finally:
            self._relay.mend()


def in_loop(test: _Test) -> Callable[..., None]:
    """A test that is a coroutine."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        with warnings.catch_warnings():
            # PyMongo leaves a socket to the collector that it was connecting when its client was closed.
            warnings.simplefilter("ignore", ResourceWarning)
            uvloop.run(test(*arguments, **named))  # what the product runs on
            if not any(isinstance(each, _Yaml) for each in (*arguments, *named.values())):
                gc.collect()

    return run


@contextlib.asynccontextmanager
async def opened(place: Place) -> AsyncIterator[ConfigStore]:
    """A store of the place, closed at the end."""
    store = place.make()
    try:
        yield store
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def watched(place: Place) -> AsyncIterator[list[Definitions]]:
    """What a store tells, from the first time on."""
    told: list[Definitions] = []

    async def listen(store: ConfigStore) -> None:
        async with contextlib.aclosing(store.watch()) as watch:  # type: ignore[type-var]
            async for definitions in watch:
                told.append(definitions)  # noqa: PERF401 (read while it grows)

    async with opened(place) as store:
        task = asyncio.create_task(listen(store))
        try:
            await until(lambda: told)
            yield told
            assert not task.done(), task.exception()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def names(definitions: Definitions) -> list[str]:
    return [pipeline.name for pipeline in definitions.pipelines]
