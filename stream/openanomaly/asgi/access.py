"""Who is let in: callers with credentials; where there are none, those on this machine."""

from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from openanomaly.web.auth import OPEN, Credentials, is_local

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1
Refuse = Callable[[str, int, str], Response]
"""The answer to who is refused, of path, status and reason."""


class Access:
    """Lets callers in who show credentials; where there are none, those on this machine."""

    def __init__(self, app: ASGIApp, credentials: Credentials, group: str, refuse: Refuse) -> None:
        """
        Args:
            group: settings that hold the credentials, for people.
        """
        self._app, self._credentials, self._group, self._refuse = app, credentials, group, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})  # before it is taken: 403
        else:
            await refusal(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        shown = headers.get("Authorization", "").encode("latin-1").decode(errors="surrogateescape")
        if not self._credentials.accepts(shown):
            refusal = self._refuse(scope["path"], 401, "authentication required")
            for name, value in self._credentials.wanted.items():
                refusal.headers.append(name, value)
            return refusal
        if not self._credentials.is_set and not _is_ours(scope, headers):
            return self._refuse(
                scope["path"], 403, f"without {self._group} only this machine itself is answered"
            )
        return None


def _is_ours(scope: Scope, headers: Headers) -> bool:
    """Whether a caller is on this machine, and no page of a stranger that found out how to ask it."""
    client = scope.get("client")
    host = headers.get("Host", "").rpartition(":")[0] or headers.get("Host", "")
    return is_local(client[0] if client else None, headers) and host in _LOOPBACK
