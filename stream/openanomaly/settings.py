"""Process settings: one tree of frozen models, checked before anything starts.

Every field has a unit in its name, a default that works on a laptop, an allowed range and a line
of documentation. `openanomaly.yaml`, `OPENANOMALY_*` variables and flags fill it, later wins
(settings_sources.py).
"""

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    Field,
    SecretStr,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from openanomaly.adapters import stores
from openanomaly.core.pipelines.options import AddedLabels, LabelName, Options, OutputName
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.errors import ConfigError

Secret = Annotated[SecretStr, Field(min_length=1)]
"""Never shown. An empty one would let everybody in."""


_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/?#@\[\]]+)(:[0-9]{1,5})?")


def _without_secrets(url: str) -> str:
    """A password may stand in a URL; who reads settings or errors must not read it."""
    return re.sub(r"//[^/]*@", "//**********@", url)


def _address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535 or (":" in host and not host.startswith("[")):
        raise ValueError(f"expected HOST:PORT or :PORT with a port up to 65535, found {value!r}")
    return value


def _http_address(value: str | None, example: str) -> str | None:
    if value is not None:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"expected {example}, found {_without_secrets(value)!r}")
    return value


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
    listen: str = ":9201"
    """Address of the receiver, the metrics and the admin API, as HOST:PORT; no host is every one."""
    tls: TlsServerSettings = TlsServerSettings()
    """Certificates of the port."""
    auth: AuthSettings = AuthSettings()
    """For the receiver and the status page."""
    admin_auth: AuthSettings = AuthSettings()
    """For the admin API; where it is not set, `auth` holds, and without that only loopback is served."""

    _is_address = field_validator("listen")(_address)


class BrokerSettings(Options):
    url: str = "embedded://./data"
    """`embedded://PATH` or `kafka://HOST:PORT[,HOST:PORT]`."""
    partitions: Annotated[int, Field(ge=1, le=4096)] = 16
    """Partitions of every topic but the dead letters'."""
    replication: Annotated[int, Field(ge=1, le=16)] = 1
    """Replicas of each topic on Kafka."""
    topic_prefix: Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,200}$")] = "openanomaly"
    """Begins the names of topics, groups and changelogs."""
    samples_retention_s: Annotated[float, Field(ge=60)] = 6 * 3600
    """How long samples are kept that nobody reads; what is not read by then is lost."""
    scores_retention_s: Annotated[float, Field(ge=60)] = 6 * 3600
    """The same for scores: the longest outage of the target that costs none."""
    dead_letter_retention_s: Annotated[float, Field(ge=60)] = 7 * 86400
    """How long records are kept that could not be used."""
    disk_limit_bytes: Annotated[int, Field(ge=64 << 20)] = 20 << 30
    """Embedded: cap of the log on disk. At the cap writes are refused (503), nothing unread is deleted."""
    synchronous: Literal["FULL", "NORMAL"] = "FULL"
    """Embedded: FULL survives a power loss, NORMAL only a crash of the process."""
    compression: Literal["none", "zstd"] = "zstd"
    """Compression of label columns in frames."""
    session_timeout_s: Annotated[float, Field(ge=1, le=600)] = 15.0
    """Kafka: silence of a worker after which others take its partitions."""
    standby_replicas: Annotated[int, Field(ge=0, le=4)] = 0
    """Kafka: window workers that hold a copy of each partition's state."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    """Kafka: how we authenticate."""
    sasl_username: str | None = None
    """Kafka: as whom."""
    sasl_password: Secret | None = None
    """Kafka: with which password."""
    tls: bool = False
    """Kafka: the connection is encrypted, and the broker's certificate checked."""
    tls_ca_file: str | None = None
    """PEM authorities of the broker; those of the system without it."""
    tls_cert_file: str | None = None
    """PEM certificate chain that we show."""
    tls_key_file: str | None = None
    """PEM private key of `tls_cert_file`."""

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, value: str) -> str:
        scheme, _, rest = value.partition("://")
        if scheme not in ("embedded", "kafka") or not rest:
            raise ValueError(
                f"expected embedded://PATH or kafka://HOST:PORT, found {_without_secrets(value)!r}"
            )
        for host in rest.rstrip("/").split(",") if scheme == "kafka" else ():
            if _HOST_PORT.fullmatch(host.strip()) is None:
                raise ValueError(
                    f"expected kafka://HOST:PORT[,HOST:PORT], found {_without_secrets(value)!r}; "
                    "credentials are broker.sasl_username and broker.sasl_password"
                )
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.sasl_username is not None and self.sasl_mechanism is None:
            raise ValueError("sasl_username needs sasl_mechanism")
        for name in ("tls_ca_file", "tls_cert_file", "tls_key_file"):
            if getattr(self, name) is not None and not self.tls:
                raise ValueError(f"{name} needs tls: true")
        if self.tls_key_file is not None and self.tls_cert_file is None:
            raise ValueError("tls_key_file needs tls_cert_file")
        return self


class ReceiverSettings(Options):
    body_limit_bytes: Annotated[int, Field(ge=1024)] = 32 << 20
    """Largest compressed request body."""
    unpacked_limit_bytes: Annotated[int, Field(ge=1024)] = 64 << 20
    """Largest declared size of an unpacked request body."""
    in_flight_limit_bytes: Annotated[int, Field(ge=1 << 20)] = 256 << 20
    """Unpacked bytes of all requests in work; beyond it 503 with Retry-After."""
    publish_timeout_s: Annotated[float, Field(gt=0, le=600)] = 20.0
    """Longest wait for the broker; below Prometheus' own 30 s."""
    retry_after_s: Annotated[int, Field(ge=1, le=3600)] = 5
    """After how long a sender that got 503 should try again."""
    coalesce_ms: Annotated[float, Field(ge=0, le=1000)] = 5.0
    """How long requests are gathered into a frame."""
    frame_limit_bytes: Annotated[int, Field(ge=4096, le=900_000)] = 512 << 10
    """Largest frame; below the broker's message limit."""
    label_names_limit: Annotated[int, Field(ge=1)] = 64
    """Most labels of a series."""
    label_name_limit_bytes: Annotated[int, Field(ge=1)] = 1024
    """Longest name of a label."""
    label_value_limit_bytes: Annotated[int, Field(ge=1)] = 4096
    """Longest value of a label."""
    known_series: Annotated[int, Field(ge=1024)] = 2_000_000
    """Raw label blocks whose identity is remembered."""
    labels_every_s: Annotated[float, Field(ge=1, le=3600)] = 600.0
    """How often a series' labels go along with its samples; window workers keep them meanwhile."""
    max_future_s: Annotated[float, Field(ge=0)] = 600.0
    """Samples further ahead of the wall clock are refused and counted."""
    replica_labels: tuple[LabelName, ...] = ()
    """Labels that tell the replicas of a high-availability pair apart, e.g. `__replica__`."""
    cluster_label: LabelName = "cluster"
    """Label that names the pair a replica belongs to."""
    failover_s: Annotated[float, Field(gt=0)] = 30.0
    """Silence of the accepted replica after which another one is."""


class WindowSettings(Options):
    max_series: Annotated[int, Field(ge=1)] = 1_000_000
    """Series held by one process; beyond it new ones are refused and counted."""
    checkpoint_s: Annotated[float, Field(ge=1, le=3600)] = 60.0
    """Longest time between two checkpoints of a partition."""
    idle_ttl_s: Annotated[float, Field(ge=60)] = 6 * 3600
    """A series without a sample for so long is evicted; at least twice receiver.labels_every_s."""
    tick_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    """How often steps are closed that no sample closes."""


class InferenceSettings(Options):
    max_batch: Annotated[int, Field(ge=1, le=65536)] = 1024
    """Most contexts of a batch."""
    max_wait_s: Annotated[float, Field(ge=0, le=60)] = 0.25
    """Longest wait of a context for others to share its batch."""
    queue_limit: Annotated[int, Field(ge=1)] = 65536
    """Contexts held in memory; beyond it the due topic waits."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Threads of the engine; 0 lets it choose."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:[0-9]+)?)$")] = "auto"
    """Where torch runs a checkpoint: `cpu`, `cuda`, `cuda:1`, `mps`; `auto` takes a GPU if there is one."""


class ServerSettings(Options):
    """How we show a server who we are, and know that it is the one."""

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

    @model_validator(mode="after")
    def _named(self) -> Self:
        # The other way round is no error here: only the sink's pods may have the password.
        if self.username is None and (self.password or self.password_file):
            raise ValueError("password and password_file need username")
        return self


class SinkSettings(ServerSettings):
    url: str | None = None
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
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    """Longest wait for the target's answer."""
    backoff_min_s: Annotated[float, Field(gt=0)] = 0.1
    """First pause after a request that the target did not take."""
    backoff_max_s: Annotated[float, Field(gt=0)] = 30.0
    """Longest pause: it doubles until then."""

    @field_validator("url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        return _http_address(value, "http://HOST:PORT/api/v1/write")

    @field_serializer("url")
    def _shown(self, value: str | None) -> str | None:
        return value and _without_secrets(value)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.backoff_min_s > self.backoff_max_s:
            raise ValueError(
                f"backoff_min_s = {self.backoff_min_s} is above backoff_max_s = {self.backoff_max_s}"
            )
        return self


class PullSettings(ServerSettings):
    url: str | None = None
    """Address of the database that is asked, before /api/v1/query_range. Scores go to the `sink`."""
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    """Longest wait for an answer."""
    retries: Annotated[int, Field(ge=0, le=100)] = 3
    """Tries after the first one, of a query or a write, where the server is away or busy."""
    backoff_min_s: Annotated[float, Field(gt=0)] = 0.1
    """First pause before such a try."""
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

    @field_validator("url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        return _http_address(value, "http://HOST:PORT")

    @field_serializer("url")
    def _shown(self, value: str | None) -> str | None:
        return value and _without_secrets(value)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.backoff_min_s > self.backoff_max_s:
            raise ValueError(
                f"backoff_min_s = {self.backoff_min_s} is above backoff_max_s = {self.backoff_max_s}"
            )
        return self


class BackfillSettings(Options):
    history_s: Annotated[float, Field(ge=0)] = 7 * 86400
    """Most history that a new series gets from the database at pull.url; 0 leaves it out."""
    series_per_query: Annotated[int, Field(ge=1, le=10_000)] = 200
    """Series that are asked for together."""
    queries_per_s: Annotated[float, Field(gt=0, le=1000)] = 2.0
    """Most such requests a second."""
    absent_labels: tuple[LabelName, ...] = ()
    """Labels that the database does not have, as external labels that a Prometheus adds when it sends."""


class StatusSettings(Options):
    series_limit: Annotated[int, Field(ge=1, le=10_000_000)] = 50_000
    """Series of which the newest steps are kept, for charts and shares of groups: 1.3 KB each."""
    lead_steps: Annotated[int, Field(ge=1, le=1000)] = 24
    """Steps kept of each: what a chart shows before its anomaly; 48 bytes each."""
    anomalies_limit: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    """Anomalous series that are shown, recent ones included: 12 KB each. Beyond it they are counted."""
    steps: Annotated[int, Field(ge=2, le=10_000)] = 240
    """Steps kept of each anomalous series; 48 bytes each."""
    recent_s: Annotated[float, Field(ge=1)] = 3600.0
    """How long an anomaly is shown after its end."""
    lead_s: Annotated[float, Field(ge=0)] = 1800.0
    """How far back scores are read at the start, so that the page is not empty after a restart."""


class ApiSettings(Options):
    listen: str = ":9202"
    """Address of the API, as HOST:PORT; no host is every one."""
    tls: TlsServerSettings = TlsServerSettings()
    """Certificates of the port."""
    auth: AuthSettings = AuthSettings()
    """For all but probes and metrics; where it is not set, only loopback is served."""
    body_limit_bytes: Annotated[int, Field(ge=1024)] = 256 << 10
    """Largest request body with a pipeline."""
    page_limit: Annotated[int, Field(ge=1, le=10_000)] = 1000
    """Most pipelines of a page."""
    admin_url: str | None = None
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

    _is_address = field_validator("listen")(_address)

    @field_validator("admin_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        return _http_address(value, "http://HOST:PORT")

    @field_serializer("admin_url")
    def _shown(self, value: str | None) -> str | None:
        return value and _without_secrets(value)


class LogSettings(Options):
    format: Literal["text", "json"] = "text"
    """Lines for people, or one JSON object a line."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important lines that are written."""


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


class Settings(Options):
    """Everything a process is told. Read-only; a change is a new one."""

    broker: BrokerSettings = BrokerSettings()
    """What roles meet on."""
    web: WebSettings = WebSettings()
    """The one port of a process."""
    receiver: ReceiverSettings = ReceiverSettings()
    """What is taken from senders."""
    window: WindowSettings = WindowSettings()
    """Series and their steps."""
    inference: InferenceSettings = InferenceSettings()
    """Forecasts in batches."""
    sink: SinkSettings = SinkSettings()
    """The target of the scores."""
    pull: PullSettings = PullSettings()
    """The database that pull mode asks."""
    backfill: BackfillSettings = BackfillSettings()
    """The past of new series."""
    status: StatusSettings = StatusSettings()
    """The status page of the sink role."""
    api: ApiSettings = ApiSettings()
    """The API of pipelines (`openanomaly api`)."""
    log: LogSettings = LogSettings()
    """What the process tells."""
    store: StoreSettings = StoreSettings()
    """Where pipelines are defined."""
    pipelines: tuple[Pipeline, ...] = (Pipeline(name="default"),)
    """What is watched, and how."""

    @field_validator("window")
    @classmethod
    def _outlives_labels(cls, value: WindowSettings, info: ValidationInfo) -> WindowSettings:
        receiver = info.data.get("receiver")
        if receiver is not None and value.idle_ttl_s < 2 * receiver.labels_every_s:
            raise ValueError(
                f"idle_ttl_s={value.idle_ttl_s:g} is less than twice receiver.labels_every_s="
                f"{receiver.labels_every_s:g}: a series that comes back would be unknown for a while"
            )
        return value

    @field_validator("pipelines")
    @classmethod
    def _different(cls, value: tuple[Pipeline, ...]) -> tuple[Pipeline, ...]:
        if not value:
            raise ValueError("at least one is needed")
        seen: set[str] = set()
        for i, pipeline in enumerate(value):
            if pipeline.name in seen:
                raise ValueError(f"pipelines.{i}.name = {pipeline.name!r}: the name is used twice")
            seen.add(pipeline.name)
        return value

    @model_validator(mode="after")
    def _defined_once(self) -> Self:
        if self.store.url is not None and "pipelines" in self.model_fields_set:
            raise ValueError(
                f"store.url={stores.shown(self.store.url)!r} and pipelines exclude each other: pipelines are "
                "defined in the store or here"
            )
        return self
