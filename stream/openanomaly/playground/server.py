"""The playground's own composition root: settings in, Streamlit configured, a server run."""

import asyncio
from pathlib import Path

from prometheus_client import Gauge
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from streamlit.starlette import App
from streamlit.web import bootstrap

from openanomaly.asgi.access import Access
from openanomaly.asgi.serve import serve
from openanomaly.errors import ConfigError
from openanomaly.playground import workshop
from openanomaly.playground.workshop import Workshop
from openanomaly.settings import PlaygroundSettings, Settings
from openanomaly.web.auth import Credentials
from openanomaly.web.server import tls_context

_PAGE = Path(__file__).with_name("page.py")
_TRY_AGAIN_LATER = 1013  # RFC 6455's registry of close codes


def build(settings: Settings) -> ASGIApp:
    """The application of the settings.

    Raises:
        ConfigError: a setting cannot be used, or an extra is missing.
    """
    credentials = Credentials(settings.playground.auth, "playground.auth")
    shop = Workshop(settings)
    workshop.install(shop)
    bootstrap.load_config_options(_options(settings.playground))
    app = App(_PAGE, routes=_probes(shop))
    limited = Limited(app, settings.playground.sessions, shop.telemetry.playground.sessions)
    return Access(limited, credentials, "playground.auth", _refused)


def check(settings: Settings) -> list[str]:
    """What would be started, after checking what can be checked without starting it.

    Raises:
        ConfigError: a setting cannot be used.
    """
    Credentials(settings.playground.auth, "playground.auth")
    tls_context(settings.playground.tls, "playground.tls")
    shop = Workshop(settings)
    shop.pipelines()
    asked = settings.model_dump()["pull"]["url"]
    return [f"playground on {settings.playground.listen}", f"data of {asked or 'files alone'}"]


def main(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; the exit status.

    Raises:
        ConfigError: a setting cannot be used, or the address is taken.
    """
    own = settings.playground
    return serve(build(settings), own.listen, own.tls, "playground", "playground", ws="websockets-sansio")


class Limited:
    """Pages that are open at once, at most `limit`: each holds what it tried."""

    def __init__(self, app: ASGIApp, limit: int, opened: Gauge) -> None:
        self._app, self._limit, self._opened = app, limit, opened
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return
        if self._open >= self._limit:
            await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER})
            return
        self._open += 1
        self._opened.set(self._open)
        try:
            await self._app(scope, receive, send)
        finally:
            self._open -= 1
            self._opened.set(self._open)


def _options(settings: PlaygroundSettings) -> dict[str, object]:
    """Of Streamlit: nothing is sent to anybody, written nowhere, and shown to no page of a stranger."""
    return {
        "browser.gatherUsageStats": False,
        "client.showErrorDetails": "none",
        "client.toolbarMode": "minimal",
        "global.developmentMode": False,
        "runner.fastReruns": True,
        "server.enableXsrfProtection": True,
        "server.enableCORS": True,
        "server.enableStaticServing": False,
        "server.fileWatcherType": "none",
        "server.headless": True,
        "server.maxUploadSize": -(-settings.upload_limit_bytes // (1 << 20)),
        "theme.primaryColor": "#2a68b3",
    }


def _probes(shop: Workshop) -> list[Route]:
    async def healthy(request: Request) -> Response:
        return JSONResponse({"status": "ok", "reasons": {}})

    async def ready(request: Request) -> Response:
        try:
            await asyncio.to_thread(shop.pipelines)
        except ConfigError as exc:
            return JSONResponse({"status": "unavailable", "reasons": {"pipelines": str(exc)}}, 503)
        return JSONResponse({"status": "ok", "reasons": {}})

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(shop.telemetry.registry), 200, {"Content-Type": content_type})

    return [Route("/-/healthy", healthy), Route("/-/ready", ready), Route("/metrics", metrics)]


def _refused(path: str, status: int, reason: str) -> Response:
    return PlainTextResponse(f"{reason}\n", status)
