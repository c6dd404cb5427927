"""Ports of ours: who is served, and how."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from openanomaly.core.pipelines.options import Options
from openanomaly.settings.values import HttpUrl, ListenAddress, Secret


class TlsServerSettings(Options):
    cert_file: str | None = None
    """PEM certificate chain; with it the port speaks TLS."""
    key_file: str | None = None
    """PEM private key of `cert_file`."""
    client_ca_file: str | None = None
    """PEM authorities; with it every client must show a certificate they signed (mTLS)."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file must be set together")
        if self.client_ca_file is not None and self.cert_file is None:
            raise ValueError("client_ca_file needs cert_file and key_file")
        return self


class AuthSettings(Options):
    bearer_token: Secret | None = None
    """Callers may authenticate with this bearer token."""
    bearer_token_file: str | None = None
    """The same from a file, read again when it changes."""
    username: str | None = None
    """Callers may authenticate with basic auth."""
    password: Secret | None = None
    """Password of `username`."""
    password_file: str | None = None
    """The same from a file, read again when it changes."""

    @property
    def is_set(self) -> bool:
        return any((self.bearer_token, self.bearer_token_file, self.username))

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.username is None) != (self.password is None and self.password_file is None):
            raise ValueError("username and password (or password_file) must be set together")
        return self


class WebSettings(Options):
    listen: ListenAddress = ":9201"
    """Address of the receiver, the metrics and the admin API, as HOST:PORT; no host is every one."""
    tls: TlsServerSettings = TlsServerSettings()
    """Certificates of the port."""
    auth: AuthSettings = AuthSettings()
    """For the receiver and the status page."""
    admin_auth: AuthSettings = AuthSettings()
    """For the admin API; where it is not set, `auth` holds, and without that only loopback is served."""


class ApiSettings(Options):
    listen: ListenAddress = ":9202"
    """Address of the API, as HOST:PORT; no host is every one."""
    tls: TlsServerSettings = TlsServerSettings()
    """Certificates of the port."""
    auth: AuthSettings = AuthSettings()
    """For all but probes and metrics; where it is not set, only loopback is served."""
    body_limit_bytes: Annotated[int, Field(ge=1024)] = 256 << 10
    """Largest request body with a pipeline."""
    page_limit: Annotated[int, Field(ge=1, le=10_000)] = 1000
    """Most pipelines of a page."""
    admin_url: HttpUrl | None = None
    """Web server of a running process with windows, http://HOST:PORT: dry runs ask it for its series."""
    admin_token: Secret | None = None
    """Bearer token that we show to it."""
    admin_token_file: str | None = None
    """The same from a file, read again when it changes."""
    admin_ca_file: str | None = None
    """PEM authorities of it; those of the system without it."""
    preview_body_limit_bytes: Annotated[int, Field(ge=1024)] = 32 << 20
    """Largest request body with recorded samples."""
    preview_samples_limit: Annotated[int, Field(ge=1)] = 2_000_000
    """Most samples of a preview."""
    preview_series_limit: Annotated[int, Field(ge=1)] = 1000
    """Most series of a preview."""
    preview_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Longest work of a preview."""
    preview_models: tuple[str, ...] = ()
    """Models that previews load besides the built-in ones, as pipelines name them."""
    previews: Annotated[int, Field(ge=1, le=64)] = 1
    """Previews at the same time; beyond it 503 with Retry-After."""


class PlaygroundSettings(Options):
    listen: ListenAddress = ":9204"
    """Address of the playground, as HOST:PORT; no host is every one."""
    tls: TlsServerSettings = TlsServerSettings()
    """Certificates of the port."""
    auth: AuthSettings = AuthSettings()
    """For all but probes and metrics; where it is not set, only loopback is served."""
    samples_limit: Annotated[int, Field(ge=1)] = 1_000_000
    """Most samples of a trial; a page holds 70 bytes of each."""
    series_limit: Annotated[int, Field(ge=1)] = 1000
    """Most series of a trial; a page holds 14 KB of each."""
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 300.0
    """Longest work of a trial."""
    upload_limit_bytes: Annotated[int, Field(ge=1 << 20)] = 64 << 20
    """Largest file that is uploaded; rounded to whole MiB."""
    sessions: Annotated[int, Field(ge=1, le=1000)] = 10
    """Pages that are open at the same time."""
    models: tuple[str, ...] = ()
    """Models that trials load besides the built-in ones, as pipelines name them."""
