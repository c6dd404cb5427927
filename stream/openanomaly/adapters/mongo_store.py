"""ConfigStore: pipeline definitions in a MongoDB collection, a document each.

    {_id: NAME, revision: TEXT, definition: {...}}

`definition` is what a YAML file would hold, units included. People may write documents by hand, with no
`revision` or an old one: changes are found by the whole content.
"""

import asyncio
import logging
import re
import uuid
import warnings
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import bson
import xxhash
from bson.errors import BSONError
from pymongo import AsyncMongoClient, WriteConcern
from pymongo.asynchronous.change_stream import AsyncChangeStream
from pymongo.errors import (
    ConfigurationError,
    DuplicateKeyError,
    InvalidURI,
    OperationFailure,
    PyMongoError,
)

from openanomaly.adapters import stores
from openanomaly.adapters.mongo_documents import FIELDS, checked
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.ports.config_store import Definitions, Stored
from openanomaly.errors import (
    ConfigError,
    PipelineChangedError,
    PipelineExistsError,
    StoreUnavailableError,
    UnknownPipelineError,
)

log = logging.getLogger(__name__)
# It logs a traceback for each cursor that an outage took; we tell the outage, once.
logging.getLogger("pymongo.client").setLevel(logging.CRITICAL)

COLLECTION = "pipelines"
_DEFAULTS: dict[str, Any] = {
    "appname": "openanomaly",
    "serverselectiontimeoutms": 3000,
    "connecttimeoutms": 3000,
    "sockettimeoutms": 20_000,
    "maxpoolsize": 4,
}
"""Of the client, where the URL does not say: an outage is told in seconds."""
_WAIT_S = 10.0
"""Longest wait of one question for changes, below the socket's timeout."""
_Document = dict[str, Any]
_T = TypeVar("_T")


class MongoAdapter:
    """A collection of definitions. Unique by `_id`; a change is made only to the content that was read."""

    def __init__(self, url: str, poll_s: float = 5.0) -> None:
        """
        Args:
            url: mongodb://[USER:PASSWORD@]HOST[:PORT]/DATABASE[?collection=NAME&OPTIONS], with the options
                of MongoDB, tls and authSource among them.
            poll_s: how often to look for changes where the server has no change streams, or is away.

        Raises:
            ConfigError: the URL has an option that MongoDB does not know, or a value it does not take.
        """
        self.shown = stores.shown(url)
        self._poll_s = poll_s
        parts = urlsplit(url)
        options = parse_qsl(parts.query, keep_blank_values=True)
        name = dict(options).get("collection", COLLECTION)
        rest = [(key, value) for key, value in options if key != "collection"]
        address = parts._replace(query=urlencode(rest)).geturl()
        given = {key.lower() for key, _ in rest}
        self._client = _client(
            address, self.shown, {key: value for key, value in _DEFAULTS.items() if key not in given}
        )
        # Durable, unless the URL has another wish.
        concern = None if given & {"w", "journal"} else WriteConcern("majority", j=True, wtimeout=10_000)
        try:
            database = self._client[parts.path.removeprefix("/")]
            self._collection = database.get_collection(name, write_concern=concern)
        except PyMongoError as exc:
            raise ConfigError(f"{self.shown}: {exc}") from exc

    async def read(self) -> Definitions:
        documents = await self._ask(self._collection.find().to_list())
        stored: list[Stored] = []
        problems: list[str] = []
        for document in documents:
            place = f"{self.shown}, _id {document.get('_id')!r}"
            found, wrongs = checked(document, place)
            problems += wrongs
            if found is not None:
                stored.append(Stored(found, _version(document)))
        stored.sort(key=lambda one: one.pipeline.name)
        return Definitions(tuple(stored), tuple(sorted(problems)))

    async def create(self, pipeline: Pipeline) -> Stored:
        document = _document(pipeline)
        try:
            await self._ask(self._collection.insert_one(document))
        except DuplicateKeyError as exc:
            name = pipeline.name
            raise PipelineExistsError(f"there is a pipeline {name!r} in {self.shown} already") from exc
        return Stored(pipeline, _version(document))

    async def replace(self, pipeline: Pipeline, version: str | None) -> Stored:
        document = _document(pipeline)
        as_read = await self._current(pipeline.name, version)
        done = await self._ask(self._collection.replace_one(as_read, document))
        if not done.matched_count:
            raise await self._refusal(pipeline.name)
        return Stored(pipeline, _version(document))

    async def delete(self, name: str, version: str | None) -> None:
        as_read = await self._current(name, version)
        done = await self._ask(self._collection.delete_one(as_read))
        if not done.deleted_count:
            raise await self._refusal(name)

    async def watch(self) -> AsyncIterator[Definitions]:
        told: Definitions | None = None
        is_away = False
        changes = _Changes(self)
        try:
            while True:
                try:
                    # First the stream, then the read: no change falls between them.
                    await changes.open()
                    found = await self.read()
                except StoreUnavailableError as exc:
                    if not is_away:
                        log.warning("%s; pipelines stay as they are", exc)
                    is_away = True
                    await asyncio.sleep(self._poll_s)
                    continue
                is_away = False
                if found != told:
                    told = found
                    yield found
                await changes.wait(self._poll_s)
        finally:
            await changes.close()

    async def close(self) -> None:
        await self._client.close()

    def changes(self, wait_s: float) -> Awaitable[AsyncChangeStream[_Document]]:
        """A stream of changes, for questions that wait so long."""
        return self._ask(self._collection.watch(max_await_time_ms=round(1000 * wait_s)))

    async def _current(self, name: str, version: str | None) -> Mapping[str, Any]:
        """A filter that matches a document as it is now, or as it was at `version`."""
        if version is None:
            return {"_id": name}
        document = await self._ask(self._collection.find_one({"_id": name}))
        if document is None:
            raise self._unknown(name)
        if _version(document) != version:
            raise self._changed(name)
        return {key: document.get(key) for key in FIELDS}

    async def _refusal(self, name: str) -> ConfigError:
        """Why a document did not match."""
        document = await self._ask(self._collection.find_one({"_id": name}))
        return self._unknown(name) if document is None else self._changed(name)

    def _unknown(self, name: str) -> UnknownPipelineError:
        return UnknownPipelineError(f"there is no pipeline {name!r} in {self.shown}")

    def _changed(self, name: str) -> PipelineChangedError:
        return PipelineChangedError(f"pipeline {name!r} in {self.shown} was changed by somebody else")

    async def _ask(self, question: Awaitable[_T]) -> _T:
        try:
            return await _cancellable(question)
        except DuplicateKeyError:
            raise
        except PyMongoError as exc:
            raise StoreUnavailableError(f"cannot reach {self.shown}: {_reason(exc)}") from exc
        except (BSONError, OverflowError, UnicodeError) as exc:
            raise ConfigError(f"MongoDB does not take the definition: {exc}") from exc


class _Changes:
    """Tells when to read again: by a change stream where the server has them, else by the clock."""

    def __init__(self, store: MongoAdapter) -> None:
        self._store = store
        self._stream: AsyncChangeStream[_Document] | None = None
        self._has_streams = True

    async def open(self) -> None:
        """
        Raises:
            StoreUnavailableError: the server is away.
        """
        if self._stream is None and self._has_streams:
            try:
                self._stream = await self._store.changes(_WAIT_S)
            except StoreUnavailableError as exc:
                if not isinstance(exc.__cause__, OperationFailure):
                    raise
                self._has_streams = False  # a server without replicas, or no right to it
                log.info("%s: no change streams, so changes are looked for: %s", self._store.shown, exc)

    async def wait(self, poll_s: float) -> None:
        """Return after a change, or when it is time to look."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        if self._stream is not None:
            try:
                if await _cancellable(self._stream.try_next()) is not None:
                    return
            except PyMongoError as exc:
                log.debug("%s: the change stream ended: %s", self._store.shown, exc)
                await self.close()
        await asyncio.sleep(max(0.0, poll_s - (loop.time() - begun)))

    async def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            try:
                await stream.close()
            except PyMongoError:
                pass  # it was lost with its server


async def _cancellable(question: Awaitable[_T]) -> _T:
    """The answer to a question; a cancellation meanwhile is never lost.

    One that comes in the moment of an answer is lost inside of PyMongo (asyncio.wait_for of Python 3.11 does
    that): a watch would go on for ever, and its process would not end.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        return await question
    finally:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError


def _client(address: str, shown: str, options: Mapping[str, Any]) -> AsyncMongoClient[_Document]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # for an unknown option there is no more than a warning
            return AsyncMongoClient(address, **options)
    except (InvalidURI, ConfigurationError, ValueError, TypeError, UserWarning) as exc:
        names = ", ".join(sorted(dict(parse_qsl(urlsplit(address).query))))
        if "unknown option" in str(exc).lower():
            reason = f"MongoDB does not know all of its options: {names}"
        else:
            # A password with @ or / is cut in the wrong place, and its rest may be in what is said.
            reason = "is it percent-encoded?" if "@" in address else str(exc)
        raise ConfigError(f"{shown} cannot be used: {reason}") from None


def _document(pipeline: Pipeline) -> _Document:
    definition = pipeline.model_dump(mode="json", exclude_unset=True)
    return {"_id": pipeline.name, "revision": uuid.uuid4().hex, "definition": definition}


def _version(document: _Document) -> str:
    content = {key: document.get(key) for key in FIELDS}
    return xxhash.xxh3_128_hexdigest(bson.encode(content))


def _reason(exc: PyMongoError) -> str:
    """What happened, without the description of every server that follows it."""
    text = str(exc).partition(", Timeout:")[0].partition(" (configured timeouts:")[0]
    return re.sub(r"\s+", " ", text).partition(", full error:")[0] or type(exc).__name__
