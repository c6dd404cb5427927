"""The status page and its API: what is watched, what is anomalous, and whether we are well."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xxhash
from aiohttp import web

from openanomaly.core.anomalies.board import Board
from openanomaly.core.anomalies.query import Query
from openanomaly.core.anomalies.report import report
from openanomaly.errors import MalformedRequestError
from openanomaly.web.server import WebServer

API = "/api/v1/anomalies"
_FOLDER = Path(__file__).parent / "page"
_PAGE = {
    "/": ("index.html", "text/html"),
    "/page/style.css": ("style.css", "text/css"),
    "/page/page.js": ("page.js", "text/javascript"),
    "/page/chart.js": ("chart.js", "text/javascript"),
    "/page/text.js": ("text.js", "text/javascript"),
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
}
_HEADERS = {
    # Nothing but what we serve ourselves, and no inline code: a label that were taken for markup
    # could still do nothing.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # keep, but ask: an answer is mostly 304
}
_PACKED_BYTES = 4096


class StatusPage:
    """`GET /` and `GET /api/v1/anomalies`. `overview` tells what the board does not know."""

    def __init__(
        self,
        board: Board,
        pipelines: Callable[[], Sequence[str]],
        overview: Callable[[], Mapping[str, Any]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._board = board
        self._pipelines = pipelines
        self._overview = overview
        self._clock = clock
        self._last: tuple[object, bytes] = None, b""
        self._files = {path: (_FOLDER / name).read_bytes() for path, (name, _) in _PAGE.items()}

    def register(self, server: WebServer) -> None:
        for path in _PAGE:
            server.get(path, self._file)
        server.get(API, self._anomalies)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        return _answer(request, self._files[request.path], _PAGE[request.path][1])

    async def _anomalies(self, request: web.Request) -> web.StreamResponse:
        try:
            given = dict(request.query)
            if len(given) < len(request.query):
                raise MalformedRequestError("a parameter is given twice")
            query = Query.parse(given, list(dict.fromkeys([*self._pipelines(), *self._board.pipelines])))
        except MalformedRequestError as exc:
            return web.Response(status=400, text=f"{exc}\n", headers=_HEADERS)
        now_s = self._clock()
        # All who look in the same second get the same bytes.
        key = request.query_string, self._board.version, int(now_s)
        if self._last[0] != key:
            content = {**self._overview(), **report(self._board, query)}
            self._last = key, json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
        content_bytes = self._last[1]
        etag = xxhash.xxh3_64_hexdigest(content_bytes)
        body = b'{"now_ms":%d,%b' % (int(now_s * 1000), content_bytes[1:])
        return _answer(request, body, "application/json", etag)


def _answer(request: web.Request, body: bytes, kind: str, etag: str | None = None) -> web.StreamResponse:
    """200 with the body, or 304 where the caller has it."""
    response = web.Response(headers=_HEADERS)
    response.etag = etag or xxhash.xxh3_64_hexdigest(body)
    known = request.if_none_match or ()
    if any(tag.value in (response.etag.value, "*") for tag in known):  # type: ignore[union-attr]
        response.set_status(304)
        return response
    response.body, response.content_type, response.charset = body, kind, "utf-8"
    if len(body) > _PACKED_BYTES:
        response.enable_compression()
    return response
