"""The playground's own composition root: settings in, Streamlit configured, a server run."""

import asyncio
import base64
import contextlib
import hashlib
import logging
import re
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

from prometheus_client import Gauge
from prometheus_client.exposition import choose_encoder
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.starlette import App
from streamlit.web import bootstrap

from openanomaly.asgi.access import Access
from openanomaly.asgi.serve import serve
from openanomaly.playground import workshop
from openanomaly.playground.workshop import Workshop
from openanomaly.settings import PlaygroundSettings, Settings
from openanomaly.web.auth import Credentials
from openanomaly.web.server import tls_context

_PAGE = Path(__file__).with_name("page.py")
_LEAVES_S = 2.0
_TALKATIVE = ("streamlit", "uvicorn", "websockets")
_INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1
_TRY_AGAIN_LATER = 1013  # RFC 6455's registry of close codes


def build(settings: Settings) -> ASGIApp:
    """The application of the settings.

    Raises:
        ConfigError: a setting cannot be used, or an extra is missing.
    """
    shop = Workshop(settings)
    workshop.install(shop)
    bootstrap.load_config_options(_options(settings.playground))
    app = App(_PAGE, routes=_probes(shop), lifespan=_begun)
    _one_log()
    return guarded(app, settings.playground, shop.telemetry.playground.sessions)


def guarded(app: ASGIApp, settings: PlaygroundSettings, opened: Gauge) -> ASGIApp:
    """The application for those alone who may see it, so many at a time.

    Raises:
        ConfigError: a secret file cannot be read.
    """
    limited = Limited(app, settings.sessions, opened)
    return Access(Closed(limited), Credentials(settings.auth, "playground.auth"), "playground.auth", _refused)


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
        self._app, self._opened = app, opened
        self._places = asyncio.Semaphore(limit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(_LEAVES_S):  # a page that is loaded anew is open twice for a moment
                await self._places.acquire()
        except TimeoutError:
            await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER})
            return
        self._opened.inc()
        try:
            await self._app(scope, receive, send)
        finally:
            self._opened.dec()
            self._places.release()


class Closed:
    """A page loads nothing from elsewhere, is in no page of somebody else, and is asked by none."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._headers = (
            (b"content-security-policy", _policy().encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *self._headers]}
            await send(message)

        if scope["type"] != "websocket":
            await self._app(scope, receive, told if scope["type"] == "http" else send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin is not None and not _is_of(origin, headers.get("host", "")):
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            return
        # Streamlit would compare it with addresses of this machine, and ask a server on the internet for one.
        rest = [(name, value) for name, value in scope["headers"] if name.lower() != b"origin"]
        await self._app({**scope, "headers": rest}, receive, send)


def _is_of(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def _policy() -> str:
    """What a page may load (Content Security Policy, level 3): nothing from elsewhere."""
    page = files("streamlit").joinpath("static/index.html").read_text("utf-8")
    inline = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in _INLINE.findall(page)]
    scripts = " ".join(f"'sha256-{digest}'" for digest in inline)
    return "; ".join(
        (
            "default-src 'self'",
            f"script-src 'self' 'unsafe-eval' {scripts}",  # Vega compiles the expressions of charts
            "style-src 'self' 'unsafe-inline'",  # of widgets
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "worker-src 'self' blob:",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            "object-src 'none'",
        )
    )


@contextlib.asynccontextmanager
async def _begun(app: App) -> AsyncIterator[None]:
    _one_log()  # it has set up more of them by now
    yield


def _one_log() -> None:
    """What Streamlit and its server tell goes where all else goes, in the same form."""
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and name.partition(".")[0] in _TALKATIVE:
            logger.handlers.clear()
            logger.propagate = True
            logger.setLevel(max(logging.WARNING, logging.root.level))


def _options(settings: PlaygroundSettings) -> dict[str, object]:
    """Of Streamlit: nothing is sent to anybody, written nowhere, and shown to no page of a stranger."""
    return {
        "browser.gatherUsageStats": False,
        "client.showErrorDetails": "none",
        "client.toolbarMode": "minimal",
        "global.developmentMode": False,
        "logger.enableRich": False,
        "runner.fastReruns": True,
        "server.disconnectedSessionTTL": 30,
        "server.enableAgentApi": False,
        "server.enableXsrfProtection": True,
        "server.enableCORS": True,
        "server.enableStaticServing": False,
        "server.fileWatcherType": "none",
        "server.headless": True,
        "server.maxUploadSize": -(-settings.upload_limit_bytes // (1 << 20)),
        "theme.light.primaryColor": "#2a68b3",
        "theme.dark.primaryColor": "#7fb2f0",
    }


def _probes(shop: Workshop) -> list[Route]:
    async def healthy(request: Request) -> Response:
        return JSONResponse({"status": "ok", "reasons": {}})

    async def ready(request: Request) -> Response:
        # Neither a store nor a database is needed: a page says what cannot be asked.
        return JSONResponse({"status": "ok", "reasons": {}})

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(shop.telemetry.registry), 200, {"Content-Type": content_type})

    return [Route("/-/healthy", healthy), Route("/-/ready", ready), Route("/metrics", metrics)]


def _refused(path: str, status: int, reason: str) -> Response:
    return PlainTextResponse(f"{reason}\n", status)
