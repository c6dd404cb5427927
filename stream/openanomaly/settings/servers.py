"""Servers that we ask and write to."""

from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_serializer, field_validator, model_validator

from openanomaly.adapters import stores
from openanomaly.core.pipelines.options import AddedLabels, Options, OutputName
from openanomaly.errors import ConfigError
from openanomaly.settings.values import HttpUrl, Secret, WriteUrl


class ServerSettings(Options):
    """How we show a server who we are, know that it is the one, and wait for it."""

    bearer_token: Secret | None = None
    """Token that we show to the server."""
    bearer_token_file: str | None = None
    """The same from a file, read again when it changes."""
    username: str | None = None
    """Name for basic auth at the server."""
    password: Secret | None = None
    """Password of `username`."""
    password_file: str | None = None
    """The same from a file, read again when it changes."""
    headers: dict[Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")], SecretStr] = {}
    """More headers of each request, e.g. X-Scope-OrgID."""
    ca_file: str | None = None
    """PEM authorities of the server; those of the system without it."""
    cert_file: str | None = None
    """PEM certificate chain that we show to the server."""
    key_file: str | None = None
    """PEM private key of `cert_file`."""

    timeout_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    """Longest wait for an answer."""
    backoff_min_s: Annotated[float, Field(gt=0)] = 0.1
    """First pause after a request that the server did not take or answer."""
    backoff_max_s: Annotated[float, Field(gt=0)] = 30.0
    """Longest pause: it doubles until then."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        # The other way round is no error here: only the sink's pods may have the password.
        if self.username is None and (self.password or self.password_file):
            raise ValueError("password and password_file need username")
        return self

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.backoff_min_s > self.backoff_max_s:
            raise ValueError(
                f"backoff_min_s = {self.backoff_min_s} is above backoff_max_s = {self.backoff_max_s}"
            )
        return self


class SinkSettings(ServerSettings):
    url: WriteUrl | None = None
    """Remote-write 1.0 address of the target; without a path /api/v1/write."""
    emit: Literal["auto", "all", "episodes"] = "auto"
    """`auto`: all up to 20,000 series, episodes beyond."""
    emit_all_limit: Annotated[int, Field(ge=0)] = 20_000
    """Series of all window workers together up to which `auto` emits all scores."""
    series: tuple[OutputName, ...] = ("anomaly_score",)
    """What is written of each score; `yhat` and its bounds are the expected value and range."""
    external_labels: AddedLabels = {}
    """Added to every series that is written."""
    batch_samples: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Most samples of a request."""
    batch_wait_s: Annotated[float, Field(ge=0, le=60)] = 0.2
    """Longest wait of a score for others to share its request."""


class PullSettings(ServerSettings):
    url: HttpUrl | None = None
    """Address of the database that is asked, before /api/v1/query_range. Scores go to the `sink`."""
    retries: Annotated[int, Field(ge=0, le=100)] = 3
    """Tries after the first one, of a query or a write, where the server is away or busy."""
    backoff_max_s: Annotated[float, Field(gt=0)] = 5.0
    """Longest pause: it doubles until then."""
    points_limit: Annotated[int, Field(ge=2, le=1_000_000)] = 11_000
    """Points of a series in one request; longer ranges are split. Prometheus refuses more."""
    series_limit: Annotated[int, Field(ge=1)] = 10_000
    """Most series of an answer; a query that gives more is refused."""
    answer_limit_bytes: Annotated[int, Field(ge=1024)] = 256 << 20
    """Most bytes, unpacked, that the answers to one query have together."""
    concurrency: Annotated[int, Field(ge=1, le=64)] = 4
    """Pipelines that are at work at once."""
    state_dir: str = "./data/pull"
    """Folder of what is known of the series, a file for each pipeline."""
    history_s: Annotated[float, Field(ge=0)] = 7 * 86400
    """Most history that a new pipeline reads; it wants `context` and `warmup` steps."""
    catch_up_s: Annotated[float, Field(ge=0)] = 3600.0
    """Steps missed for longer are left out and counted: nobody waits for their scores any more."""
    pending_limit: Annotated[int, Field(ge=1)] = 100_000
    """Scores of a pipeline that wait for the target; beyond it the pipeline waits too."""


class StoreSettings(Options):
    url: str | None = None
    """Where pipelines are defined: a YAML file or folder (PATH, `yaml:PATH`, `file:///PATH`) or
    `mongodb://HOST:PORT/DATABASE?collection=NAME`. Without it: `pipelines` of the settings."""
    poll_s: Annotated[float, Field(gt=0, le=3600)] = 5.0
    """How often changes are looked for where a store does not tell them."""

    @field_validator("url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                stores.check_url(value)
            except ConfigError as exc:
                raise ValueError(str(exc)) from exc
        return value

    @field_serializer("url")
    def _shown(self, value: str | None) -> str | None:
        return value and stores.shown(value)
