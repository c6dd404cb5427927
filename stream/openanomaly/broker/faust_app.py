"""Faust apps as we run them: one per role, settings that lose nothing, topics made before they start."""

import asyncio
import contextlib
import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import faust
from aiokafka.errors import KafkaError
from faust.types import TP
from yarl import URL

from openanomaly.broker.lease import Lease
from openanomaly.broker.topics import MAX_RECORD_BYTES, TopicSpec
from openanomaly.errors import BusUnavailableError, ConfigError

if TYPE_CHECKING:
    from openanomaly.broker.delivery import ReleasedOffsets
    from openanomaly.broker.ledger import Ledger

_FLUSH_S = 3.0

Role = Literal["ingest", "window", "infer", "sink"]
Row = tuple[int, bytes | None, bytes | memoryview | None]
"""A record to write: partition, key, value."""


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """What transports and apps are told; names are those of the `broker` settings."""

    url: str
    partitions: int = 16
    replication: int = 1
    topic_prefix: str = "openanomaly"
    session_timeout_s: float = 15.0
    standby_replicas: int = 0
    synchronous: Literal["FULL", "NORMAL"] = "FULL"
    disk_limit_bytes: int = 20 << 30
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = None
    tls: bool = False
    tls_ca_file: str | None = None
    tls_cert_file: str | None = None
    tls_key_file: str | None = None

    @property
    def is_embedded(self) -> bool:
        return self.url.startswith("embedded://")


class App(faust.App):
    """A Faust app that knows its role, its topics and its ledgers."""

    role: Role
    config: BrokerConfig
    specs: dict[str, TopicSpec]
    ledgers: "list[Ledger]"
    lease: Lease
    """Whether what has state may write it; without a group, for ever."""
    is_up: bool = False
    """True from the end of its start, recovery included."""

    async def ensure_topics(self) -> None:
        """Make every declared topic exist, before anything reads or writes it.

        Raises:
            ConfigError: a topic exists with another number of partitions.
            BusUnavailableError: the broker cannot be reached.
        """
        await self.producer_transport.ensure(list(self.specs.values()))

    async def _producer_flush(self, logger: Any) -> None:
        """At a stop what the broker does not confirm is given up: it was not promised to anybody."""
        if not self.should_stop:
            await super()._producer_flush(logger)
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(super()._producer_flush(logger), _FLUSH_S)

    def _create_directories(self) -> None:
        """None: no state of ours is in Faust's folders, and the working folder may be read-only."""

    async def close_transports(self) -> None:
        """Let go of the broker; after `stop`."""
        for transport in (self._transport, self._producer_transport):
            if transport is not None:
                await transport.close()


def make_app(role: Role, config: BrokerConfig) -> App:
    """The Faust app of a role; `ingest` only produces: it has no group and serves at once.

    Raises:
        ConfigError: certificates cannot be loaded.
    """
    app = App(
        f"{config.topic_prefix}-{role}",
        broker=broker_url(config),
        broker_credentials=credentials(config),
        store="memory://",
        autodiscover=False,
        web_enabled=False,
        # What keeps records safe; see docs/decisions/0011 and 0012.
        processing_guarantee="at_least_once",
        stream_wait_empty=False,
        agent_supervisor="mode.CrashingSupervisor",
        TableManager="openanomaly.broker.recovery:TableManager",
        consumer_auto_offset_reset="earliest",
        broker_commit_interval=1.0,
        broker_session_timeout=config.session_timeout_s,
        broker_heartbeat_interval=max(0.3, config.session_timeout_s / 5),
        # Topics are ours to make: `ensure_topics`.
        topic_partitions=config.partitions,
        topic_replication_factor=config.replication,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=config.standby_replicas,
        # Everything buffered is bounded by count, and a record is a frame of up to 1 MB.
        stream_buffer_maxsize=64,
        broker_max_poll_records=100,
        consumer_max_fetch_size=8 << 20,
        producer_max_request_size=MAX_RECORD_BYTES + (32 << 10),
        producer_max_batch_size=512 << 10,
        producer_linger=0.005,
    )
    app.role, app.config, app.specs, app.ledgers = role, config, {}, []
    app.lease = Lease(config.session_timeout_s)
    app.producer_only = role == "ingest"
    return app


def broker_url(config: BrokerConfig) -> Any:
    """The URL as Faust takes it; options of the embedded broker travel in its query."""
    if not config.is_embedded:
        scheme, _, hosts = config.url.partition("://")
        return [URL(f"{scheme}://{host.strip()}") for host in hosts.rstrip("/").split(",")]
    query = {"synchronous": config.synchronous, "disk_limit_bytes": str(config.disk_limit_bytes)}
    return URL(config.url).update_query(query)


def tls_context(config: BrokerConfig) -> ssl.SSLContext | None:
    """Our side of TLS to Kafka, or None without `broker.tls`.

    Raises:
        ConfigError: a file cannot be read, or is not what it should be.
    """
    if not config.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=config.tls_ca_file)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"cannot load broker.tls_ca_file {config.tls_ca_file}: {exc}") from exc
    if config.tls_cert_file is not None:
        try:
            context.load_cert_chain(config.tls_cert_file, config.tls_key_file)
        except (OSError, ssl.SSLError) as exc:
            raise ConfigError(
                f"cannot load broker.tls_cert_file {config.tls_cert_file} with its key: {exc}"
            ) from exc
    return context


def credentials(config: BrokerConfig) -> Any:
    """What we show to Kafka, as Faust takes it.

    Raises:
        ConfigError: a certificate cannot be loaded, or a name or password is missing.
    """
    context = tls_context(config)
    if config.sasl_mechanism is not None:
        if not config.sasl_username or config.sasl_password is None:
            raise ConfigError(
                f"broker.sasl_mechanism={config.sasl_mechanism} needs broker.sasl_username and "
                "broker.sasl_password"
            )
        return faust.SASLCredentials(
            username=config.sasl_username,
            password=config.sasl_password,
            ssl_context=context,
            mechanism=config.sasl_mechanism,
        )
    return faust.SSLCredentials(context) if context is not None else None


def declare(app: App, spec: TopicSpec) -> Any:
    """A Faust topic of raw records that `ensure_topics` makes exist as `spec` says."""
    app.specs[spec.name] = spec
    return app.topic(
        spec.name,
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
        partitions=spec.partitions,
        allow_empty=True,
    )


async def publish(app: App, topic: str, records: Sequence[Row], timeout_s: float | None = None) -> list[int]:
    """Write records; returns once the broker has every one durably.

    Args:
        timeout_s: longest wait; None waits for as long as the producer does.

    Returns:
        The offset of each record.

    Raises:
        BusUnavailableError: some were not confirmed. They may have been written all the same, so
            whoever tries again writes twice; readers take that as one.
    """
    if not records:
        return []
    producer = app.producer
    sent: list[asyncio.Future[Any]] = []
    try:
        async with asyncio.timeout(timeout_s):
            await app.maybe_start_producer()
            if append_all := getattr(producer, "append_all", None):
                sent.append(append_all(topic, records))
                offsets: list[int] = await sent[0]
                return offsets
            for partition, key, value in records:
                if isinstance(value, memoryview):
                    value = bytes(value)
                sent.append(await producer.send(topic, key, value, partition, None, None))
            done = await asyncio.gather(*sent)
    except TimeoutError as exc:
        raise BusUnavailableError(
            f"the broker did not confirm {len(records)} records of {topic} within {timeout_s} s"
        ) from exc
    except KafkaError as exc:
        raise BusUnavailableError(f"the broker did not take records of {topic}: {exc}") from exc
    finally:
        for future in sent:
            # What nobody waits for any more: a late failure must not be logged as unretrieved.
            if not future.done() or not future.cancelled():
                future.add_done_callback(_look_at)
    return [metadata.offset for metadata in done]


def _look_at(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled():
        future.exception()


async def end_offsets(app: App, tps: Iterable[TP]) -> dict[TP, int]:
    """The offset after the last record of each partition, as the broker says now."""
    tps = set(tps)
    if not tps:
        return {}
    found: Mapping[TP, int] = await app.consumer.highwaters(*tps)
    return {TP(*tp): offset for tp, offset in found.items()}


async def committed_offsets(app: App, tps: Iterable[TP]) -> dict[TP, int]:
    """Where delivery of each partition begins: the committed offset, or the earliest there is."""
    return await cast("ReleasedOffsets", app.consumer).begin_offsets(tps)


def expired_records(app: App) -> dict[str, int]:
    """How many records of each topic retention deleted before `app` read them."""
    expired = cast("ReleasedOffsets", app.consumer).expired
    topics = [ledger.topic for ledger in app.ledgers]
    return {topic: sum(n for tp, n in expired.items() if tp.topic == topic) for topic in topics}
