"""The one web server of a process: receiver, probes, metrics and admin API."""

import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from openanomaly.errors import ConfigError
from openanomaly.settings import TlsServerSettings, WebSettings
from openanomaly.web.auth import middleware

log = logging.getLogger(__name__)

_EVERY_HOST = ("", "0.0.0.0", "[::]")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Health:
    """What the probes say. A check gives the reason why its part is not well, or None."""

    alive: dict[str, Callable[[], str | None]] = field(default_factory=dict)
    ready: dict[str, Callable[[], str | None]] = field(default_factory=dict)

    @staticmethod
    def reasons(checks: Mapping[str, Callable[[], str | None]]) -> dict[str, str]:
        return {name: reason for name, check in checks.items() if (reason := check()) is not None}


class WebServer:
    """Serves until `stop`; requests in work are answered first."""

    def __init__(self, settings: WebSettings, registry: CollectorRegistry, health: Health) -> None:
        self._settings = settings
        self._registry = registry
        self._health = health
        # The receiver has its own limits, with errors that name the setting: none here.
        self.app = web.Application(middlewares=[middleware(settings)], client_max_size=0)  # type: ignore[list-item]
        self.app.router.add_get("/-/healthy", self._healthy)
        self.app.router.add_get("/-/ready", self._ready)
        self.app.router.add_get("/metrics", self._metrics)
        self._runner: web.AppRunner | None = None
        self.port: int | None = None

    @property
    def url(self) -> str:
        """Where a caller on this machine finds it, once it listens."""
        host = self._settings.listen.rpartition(":")[0]
        scheme = "http" if self._settings.tls.cert_file is None else "https"
        return f"{scheme}://{'localhost' if host in _EVERY_HOST else host}:{self.port}"

    def post(self, path: str, handler: Handler) -> None:
        self.app.router.add_post(path, handler)

    def get(self, path: str, handler: Handler) -> None:
        self.app.router.add_get(path, handler)

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: the address is taken, or certificates cannot be loaded.
        """
        host, _, port = self._settings.listen.rpartition(":")
        context = tls_context(self._settings.tls)
        self._runner = web.AppRunner(
            self.app,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=5.0,
            # The receiver names what it does not speak (415); aiohttp answers 400 to some encodings.
            auto_decompress=False,
        )
        await self._runner.setup()
        site = web.TCPSite(
            self._runner, host.strip("[]") or None, int(port), ssl_context=context, reuse_address=True
        )
        try:
            await site.start()
        except (OSError, UnicodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else exc
            raise ConfigError(
                f"cannot listen on {self._settings.listen}: {reason}; set web.listen or --listen"
            ) from exc
        self.port = self._runner.addresses[0][1]
        log.info("listening on %s%s", self._settings.listen, " (TLS)" if context else "")

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthy(self, request: web.Request) -> web.Response:
        return _probe(Health.reasons(self._health.alive))

    async def _ready(self, request: web.Request) -> web.Response:
        return _probe(Health.reasons(self._health.ready) | Health.reasons(self._health.alive))

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})


def _probe(reasons: Mapping[str, str]) -> web.Response:
    status = 503 if reasons else 200
    return web.json_response(
        {"status": "unavailable" if reasons else "ok", "reasons": dict(reasons)}, status=status
    )


def tls_context(settings: TlsServerSettings, group: str = "web.tls") -> ssl.SSLContext | None:
    """The server's side of TLS, or None for plain HTTP. `group` names the settings in errors.

    Raises:
        ConfigError: a file cannot be read, or is not what it should be.
    """
    if settings.cert_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without a password OpenSSL would ask the terminal for that of an encrypted key, and wait.
        context.load_cert_chain(settings.cert_file, settings.key_file, password="")
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"cannot load {group}.cert_file {settings.cert_file} with its key: {exc}") from exc
    if settings.client_ca_file is not None:
        try:
            context.load_verify_locations(settings.client_ca_file)
        except (OSError, ssl.SSLError) as exc:
            raise ConfigError(f"cannot load {group}.client_ca_file {settings.client_ca_file}: {exc}") from exc
        context.verify_mode = ssl.CERT_REQUIRED
    return context
