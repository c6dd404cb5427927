"""The API's own composition root: settings in, a store and who can be asked chosen, a server run."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client.exposition import choose_encoder
from starlette.types import ASGIApp

from openanomaly.adapters.stores import make_store
from openanomaly.api import description, dry_run, pipelines, preview, problems
from openanomaly.api.counting import Counted, Heads
from openanomaly.api.previews import Previews
from openanomaly.api.requests import to_json
from openanomaly.api.series import AdminCounter, DatabaseCounter, Nobody, SeriesCounter
from openanomaly.asgi.access import Access
from openanomaly.asgi.serve import serve
from openanomaly.core.ports.config_store import ConfigStore
from openanomaly.core.ports.tsdb_client import TSDBClient
from openanomaly.errors import ConfigError, StoreUnavailableError
from openanomaly.settings import Settings
from openanomaly.settings.clients import database
from openanomaly.telemetry import Telemetry
from openanomaly.web.auth import Credentials
from openanomaly.web.server import tls_context

_READY_S = 5.0


def create(
    settings: Settings, store: ConfigStore, counter: SeriesCounter, client: TSDBClient | None = None
) -> ASGIApp:
    """The application, whose parts are given.

    Raises:
        ConfigError: a secret file cannot be read.
    """
    telemetry, api = Telemetry(), settings.api

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await counter.close()
        await store.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    routers = [
        pipelines.router(store, settings.presets, api.body_limit_bytes, api.page_limit),
        dry_run.router(store, settings.presets, counter, api.body_limit_bytes, len(settings.sink.series)),
        preview.router(store, Previews(api, settings.inference, telemetry.api, client)),
        description.router(lambda: described),
        _probes(store, telemetry),
    ]
    routes = [route for each in routers for route in each.routes]
    problems.install(app, routes)
    for each in routers:
        app.include_router(each)
    given = api.auth
    described = description.describe(
        app,
        with_tokens=bool(given.bearer_token or given.bearer_token_file),
        with_passwords=given.username is not None,
    )
    allowed = Access(Heads(app), Credentials(given, "api.auth"), "api.auth", problems.problem)
    return Counted(allowed, telemetry.api, routes)


def _probes(store: ConfigStore, telemetry: Telemetry) -> APIRouter:
    routes = APIRouter()

    @routes.get("/-/healthy", include_in_schema=False)
    async def healthy() -> Response:
        return to_json({"status": "ok", "reasons": {}})

    @routes.get("/-/ready", include_in_schema=False)
    async def ready() -> Response:
        try:
            async with asyncio.timeout(_READY_S):
                await store.read()
        except (StoreUnavailableError, TimeoutError) as exc:
            reason = str(exc) or f"no answer of {store.shown} within {_READY_S:g} s"
            return to_json({"status": "unavailable", "reasons": {"store": reason}}, 503)
        return to_json({"status": "ok", "reasons": {}})

    @routes.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(telemetry.registry), 200, {"Content-Type": content_type})

    return routes


def build(settings: Settings) -> ASGIApp:
    """The application of the settings.

    Raises:
        ConfigError: a setting cannot be used, or an extra is missing.
    """
    if settings.store.url is None:
        raise ConfigError(
            "store.url is not set: the API keeps pipelines there, in a YAML file or a folder of them"
        )
    store = make_store(settings.store.url, settings.store.poll_s)
    client = database(settings)
    counter: SeriesCounter = Nobody()
    if client is not None:
        counter = DatabaseCounter(client)
    elif settings.api.admin_url is not None:
        counter = AdminCounter(settings.api)
    return create(settings, store, counter, client)


def check(settings: Settings) -> list[str]:
    """What would be started, after checking what can be checked without starting it.

    Raises:
        ConfigError: a setting cannot be used.
    """
    build(settings)
    tls_context(settings.api.tls, "api.tls")
    asked = settings.model_dump()["pull"]["url"] or settings.model_dump()["api"]["admin_url"]
    return [
        f"API on {settings.api.listen}",
        f"pipelines in {settings.model_dump()['store']['url']}",
        f"series are counted by {asked or 'nobody'}",
    ]


def main(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; the exit status.

    Raises:
        ConfigError: a setting cannot be used, or the address is taken.
    """
    told = f"API, pipelines in {settings.model_dump()['store']['url']}"
    return serve(build(settings), settings.api.listen, settings.api.tls, "api", told)
