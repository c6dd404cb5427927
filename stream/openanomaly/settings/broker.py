"""What roles meet on."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from openanomaly.core.pipelines.options import Options
from openanomaly.settings.values import Secret, without_secrets

_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/?#@\[\]]+)(:[0-9]{1,5})?")


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
                f"expected embedded://PATH or kafka://HOST:PORT, found {without_secrets(value)!r}"
            )
        for host in rest.rstrip("/").split(",") if scheme == "kafka" else ():
            if _HOST_PORT.fullmatch(host.strip()) is None:
                raise ValueError(
                    f"expected kafka://HOST:PORT[,HOST:PORT], found {without_secrets(value)!r}; "
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
