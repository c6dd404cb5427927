"""Who may call: bearer tokens and basic auth, compared in constant time."""

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Mapping
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler
from multidict import CIMultiDict

from openanomaly.errors import ConfigError
from openanomaly.settings import AuthSettings, WebSettings

ADMIN = "/api/v1/admin/"
OPEN = ("/-/healthy", "/-/ready", "/metrics")
"""Probes and scrapes carry no credentials; none of these tells of series or accepts anything."""


class SecretFile:
    """A secret in a file, read again when the file changes: a rotated one holds without a restart."""

    def __init__(self, setting: str, path: str) -> None:
        self._setting = setting
        self._path = Path(path)
        self._stamp: tuple[int, int] | None = None
        self._value = b""
        self.read()

    def read(self) -> bytes:
        try:
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            # An empty one is in the middle of a rotation, as one that is away: the old one holds.
            if stamp != self._stamp and (value := self._path.read_bytes().strip()):
                self._value, self._stamp = value, stamp
        except OSError as exc:
            if self._stamp is None:
                raise ConfigError(f"cannot read {self._setting}={self._path}: {exc.strerror}") from exc
        if self._stamp is None:
            raise ConfigError(f"{self._setting}={self._path} is empty: everybody would know it")
        return self._value


class Credentials:
    """What a caller must show; without any, everybody passes. `group` names the settings in errors."""

    def __init__(self, settings: AuthSettings, group: str) -> None:
        self.is_set = settings.is_set
        self._tokens: list[bytes | SecretFile] = []
        if settings.bearer_token is not None:
            self._tokens.append(settings.bearer_token.get_secret_value().encode())
        if settings.bearer_token_file is not None:
            self._tokens.append(SecretFile(f"{group}.bearer_token_file", settings.bearer_token_file))
        self._username = (settings.username or "").encode()
        self._password: bytes | SecretFile | None = None
        if settings.password is not None:
            self._password = settings.password.get_secret_value().encode()
        elif settings.password_file is not None:
            self._password = SecretFile(f"{group}.password_file", settings.password_file)

    @property
    def wanted(self) -> CIMultiDict[str]:
        """The header that asks for credentials: one for each kind, or browsers see the first alone."""
        kinds = ['Basic realm="openanomaly"'] * (self._password is not None) + ["Bearer"] * bool(self._tokens)
        return CIMultiDict(("WWW-Authenticate", kind) for kind in kinds)

    def accepts(self, header: str | None) -> bool:
        """Whether the value of an Authorization header passes."""
        if not self.is_set:
            return True
        scheme, _, rest = (header or "").partition(" ")
        if scheme.lower() == "bearer":
            # Headers may hold any bytes; aiohttp keeps them as surrogates.
            shown = rest.strip().encode(errors="surrogateescape")
            # Every token is compared, so that the time does not tell which one was close.
            return sum(hmac.compare_digest(_bytes(t), shown) for t in self._tokens) > 0
        if scheme.lower() == "basic" and self._password is not None:
            try:
                username, colon, password = base64.b64decode(rest.strip(), validate=True).partition(b":")
            except (binascii.Error, ValueError):
                return False
            right = hmac.compare_digest(username, self._username)
            return bool(colon) and hmac.compare_digest(password, _bytes(self._password)) and right
        return False


def _bytes(secret: bytes | SecretFile) -> bytes:
    return secret if isinstance(secret, bytes) else secret.read()


def middleware(settings: WebSettings) -> object:
    """Refuse callers without credentials: `auth` for everything but the admin API, which has its own.

    Where neither is set, the admin API answers loopback callers only.
    """
    callers = Credentials(settings.auth, "web.auth")
    admins = Credentials(settings.admin_auth, "web.admin_auth") if settings.admin_auth.is_set else callers

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in OPEN:
            return await handler(request)
        is_admin = request.path.startswith(ADMIN)
        credentials = admins if is_admin else callers
        if not credentials.accepts(request.headers.get("Authorization")):
            raise web.HTTPUnauthorized(text="authentication required\n", headers=credentials.wanted)
        if is_admin and not credentials.is_set and not is_local(request.remote, request.headers):
            raise web.HTTPForbidden(
                text="the admin API answers this machine only until web.admin_auth or web.auth is set\n"
            )
        return await handler(request)

    return authenticate


def is_local(remote: str | None, headers: Mapping[str, str]) -> bool:
    """Whether the caller at the address `remote` is on this machine itself, and not behind a proxy that is.

    Names of `headers` are compared without regard to case.
    """
    if "Forwarded" in headers or "X-Forwarded-For" in headers:
        return False
    try:
        address = ipaddress.ip_address(remote or "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
