"""An ASGI application on its port, until it is asked to stop."""

import logging
import signal
import socket
import threading
from types import FrameType
from typing import Literal

import uvicorn
from starlette.types import ASGIApp

from openanomaly.errors import ConfigError
from openanomaly.settings import TlsServerSettings
from openanomaly.web.server import tls_context

log = logging.getLogger(__name__)

_STOP_S = 5
_MESSAGE_BYTES = 1 << 20
"""Largest message of a WebSocket that is taken; files come by other ways."""


def serve(
    app: ASGIApp,
    address: str,
    tls: TlsServerSettings,
    group: str,
    told: str,
    *,
    ws: Literal["none", "websockets-sansio"] = "none",
) -> int:
    """Serve until SIGTERM or SIGINT; the exit status.

    Args:
        group: settings that hold `address` and `tls`, for people.
        told: what is served, for the log.
        ws: how WebSockets are spoken.

    Raises:
        ConfigError: a certificate cannot be used, or the address is taken.
    """
    context = tls_context(tls, f"{group}.tls")
    with _listen(address, group) as listener:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            proxy_headers=False,  # who calls is who is connected
            server_header=False,
            ws=ws,
            ws_max_size=_MESSAGE_BYTES,
            lifespan="on",
            timeout_graceful_shutdown=_STOP_S,
            ssl_context_factory=(lambda config, default: context) if context is not None else None,
        )
        scheme = "http" if context is None else "https"
        log.info("%s: %s on port %d", told, scheme, listener.getsockname()[1])
        if threading.current_thread() is threading.main_thread():
            # Once uvicorn has ended for a signal it raises it anew, for the handler that was there before.
            for each in (signal.SIGTERM, signal.SIGINT):
                signal.signal(each, _already_ended)
        uvicorn.Server(config).run([listener])
    return 0


def _already_ended(number: int, frame: FrameType | None) -> None:
    """The default would be a death by the signal, or a traceback: no status that says that all went well."""


def _listen(address: str, group: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        if host:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return socket.create_server((host, int(port)), family=family)
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", int(port)))
    except (OSError, UnicodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise ConfigError(f"cannot listen on {address}: {reason}; set {group}.listen or --listen") from exc
