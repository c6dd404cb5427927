"""The admin API's part for dead letters: list, show, replay."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import asdict
from typing import Annotated, Protocol

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from openanomaly.core.letters import Filter, Letter, Outcome
from openanomaly.errors import BrokerError, MalformedRequestError, RejectedError, RetryableError
from openanomaly.web.auth import ADMIN
from openanomaly.web.server import WebServer

PATH = ADMIN + "dead-letters"
_LIMIT, _MOST = 100, 1000
_MOST_REPLAYED = 100
_BODY_BYTES = 64 << 10
_PARAMETERS = ("topic", "reason", "since_ms", "before", "set_aside", "limit")
_Id = Annotated[int, Field(ge=0, lt=2**63)]


class Letters(Protocol):
    """Where the dead letters are (broker/letters.py)."""

    async def find(self, wanted: Filter, limit: int) -> list[Letter]: ...

    async def get(self, id_: int) -> tuple[Letter, bytes] | None: ...

    async def replay(
        self, ids: Collection[int], *, force: bool = False, dry_run: bool = False
    ) -> list[Outcome]: ...


class _Replay(BaseModel):
    """Which letters to replay: `ids`, or the newest that the filter chooses and nobody has replayed."""

    model_config = ConfigDict(extra="forbid", strict=True)

    ids: Annotated[list[_Id], Field(max_length=_MOST_REPLAYED)] | None = None
    topic: str | None = None
    reason: str | None = None
    since_ms: _Id = 0
    limit: Annotated[int, Field(ge=1, le=_MOST_REPLAYED)] = _MOST_REPLAYED
    force: bool = False
    dry_run: bool = False


class DeadLetterDesk:
    """Answers below `/api/v1/admin/dead-letters`, about `letters`."""

    def __init__(self, letters: Letters) -> None:
        self._letters = letters

    def register(self, server: WebServer) -> None:
        server.get(PATH, _answers(self._list))
        server.get(PATH + "/{id}", _answers(self._show))
        server.get(PATH + "/{id}/payload", _answers(self._payload))
        server.post(PATH + "/replay", _answers(self._replay))

    async def _list(self, request: web.Request) -> web.Response:
        wanted, limit = _query(request.query)
        found = await self._letters.find(wanted, limit)
        return web.json_response({"letters": [asdict(letter) for letter in found]})

    async def _show(self, request: web.Request) -> web.Response:
        letter, _ = await self._find(request)
        return web.json_response(asdict(letter))

    async def _payload(self, request: web.Request) -> web.Response:
        _, payload = await self._find(request)
        return web.Response(body=payload, content_type="application/octet-stream")

    async def _find(self, request: web.Request) -> tuple[Letter, bytes]:
        id_ = _number("id", request.match_info["id"])
        found = await self._letters.get(id_)
        if found is None:
            raise web.HTTPNotFound(text=f"there is no dead letter {id_}\n")
        return found

    async def _replay(self, request: web.Request) -> web.Response:
        # A page in a browser could have its reader send anything here, but for this content type.
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="expected a body of application/json\n")
        body = await _body(request)
        try:
            asked = _Replay.model_validate_json(body)
        except ValidationError as exc:
            first = exc.errors()[0]
            where = ".".join(map(str, first["loc"])) or "body"
            raise MalformedRequestError(f"{where}: {first['msg']}") from exc
        ids = asked.ids
        if ids is None:
            wanted = Filter(asked.topic, asked.reason, asked.since_ms, set_aside=True)
            found = await self._letters.find(wanted, _MOST)
            able = [x.id for x in found if x.obstacle is None and (asked.force or not x.replays)]
            ids = able[: asked.limit]
        outcomes = await self._letters.replay(ids, force=asked.force, dry_run=asked.dry_run)
        return web.json_response({"letters": [asdict(outcome) for outcome in outcomes]})


def _answers(
    handler: Callable[[web.Request], Awaitable[web.Response]],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """The handler, with our errors as answers."""

    async def answer(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except RejectedError as exc:
            return web.Response(status=exc.status, text=f"{exc}\n")
        except (RetryableError, BrokerError) as exc:
            return web.Response(status=503, text=f"{exc}\n")

    return answer


def _query(query: Mapping[str, str]) -> tuple[Filter, int]:
    for name in query:
        if name not in _PARAMETERS:
            raise MalformedRequestError(f"there is no parameter {name!r}; known: {', '.join(_PARAMETERS)}")
    limit = _number("limit", query.get("limit", str(_LIMIT)))
    if not 1 <= limit <= _MOST:
        raise MalformedRequestError(f"limit={limit}: expected 1 to {_MOST}")
    set_aside = query.get("set_aside")
    if set_aside not in (None, "true", "false"):
        raise MalformedRequestError(f"set_aside={set_aside}: expected true or false")
    before = query.get("before")
    wanted = Filter(
        topic=query.get("topic"),
        reason=query.get("reason"),
        since_ms=_number("since_ms", query.get("since_ms", "0")),
        before=None if before is None else _number("before", before),
        set_aside=None if set_aside is None else set_aside == "true",
    )
    return wanted, limit


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise MalformedRequestError(f"{name}={text[:40]}: expected a whole number")
    return int(text)


async def _body(request: web.Request) -> bytes:
    body = b""
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > _BODY_BYTES:
            raise web.HTTPRequestEntityTooLarge(_BODY_BYTES, len(body))
    return body
