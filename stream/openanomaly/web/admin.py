"""The admin API: what a running process is doing, for people and for our own commands."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.errors import ConfigError
from openanomaly.settings import Settings
from openanomaly.web.auth import ADMIN
from openanomaly.web.server import WebServer

_LEVELS = ("debug", "info", "warning", "error")
Report = Callable[[], Mapping[str, Any]]
Explain = Callable[[str], Awaitable[list[dict[str, Any]]]]
Count = Callable[[str], Awaitable[dict[str, int]]]


class Admin:
    """Answers below `/api/v1/admin/`. Rooms add reports of their own."""

    def __init__(self, settings: Settings, pipelines: Callable[[], Sequence[Pipeline]]) -> None:
        self._settings = settings
        self._running = pipelines
        self.reports: dict[str, Report] = {}
        self._explain: Explain | None = None
        self._count: Count | None = None

    def report(self, name: str, report: Report) -> None:
        """Show what `report` returns under `name` of the status."""
        self.reports[name] = report

    def explain(self, explain: Explain, count: Count) -> None:
        """How series that a selector chooses are looked up, and how they are counted."""
        self._explain, self._count = explain, count

    def register(self, server: WebServer) -> None:
        server.get(ADMIN + "status", self._status)
        server.get(ADMIN + "pipelines", self._pipelines)
        server.get(ADMIN + "settings", self._show_settings)
        server.get(ADMIN + "series", self._series)
        server.get(ADMIN + "series/count", self._series_count)
        server.app.router.add_put(ADMIN + "log-level", self._log_level)

    async def _status(self, request: web.Request) -> web.Response:
        return web.json_response({name: dict(report()) for name, report in self.reports.items()})

    async def _pipelines(self, request: web.Request) -> web.Response:
        return web.json_response([p.model_dump(mode="json") for p in self._running()])

    async def _show_settings(self, request: web.Request) -> web.Response:
        return web.json_response(self._settings.model_dump(mode="json"))  # secrets are masked by their type

    async def _series(self, request: web.Request) -> web.Response:
        return await _looked_up(request, self._explain)

    async def _series_count(self, request: web.Request) -> web.Response:
        return await _looked_up(request, self._count)

    async def _log_level(self, request: web.Request) -> web.Response:
        level = (await request.content.read(64)).decode(errors="replace").strip().lower()
        if level not in _LEVELS:
            raise web.HTTPBadRequest(text=f"log level {level!r}: expected one of {', '.join(_LEVELS)}\n")
        logging.getLogger("openanomaly").setLevel(level.upper())
        return web.json_response({"level": level})


async def _looked_up(request: web.Request, look: Explain | Count | None) -> web.Response:
    selector = request.query.get("match", "")
    if look is None:
        raise web.HTTPNotFound(text="this process keeps no windows; ask a window worker\n")
    if not selector:
        raise web.HTTPBadRequest(text='parameter match is missing: a selector such as up{job="node"}\n')
    try:
        return web.json_response(await look(selector))
    except ConfigError as exc:
        raise web.HTTPBadRequest(text=f"parameter match: {exc}\n") from exc
