"""Topics on Kafka: made as specified, or verified, before anything reads or writes them."""

import asyncio
import logging
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.conn import create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    BrokerResponseError,
    IncompatibleBrokerVersion,
    KafkaError,
    SaslAuthenticationFailed,
    TopicAlreadyExistsError,
    UnsupportedSaslMechanismError,
    for_code,
)

from openanomaly.broker.topics import MAX_RECORD_BYTES, TopicSpec
from openanomaly.errors import BusUnavailableError, ConfigError

log = logging.getLogger(__name__)

_TIMEOUT_S = 10.0
_MAX_MESSAGE_BYTES = 1_048_588
"""Kafka's own default, set all the same: a cluster may have another."""
_SHORTEST_SEGMENT_S = 600
_LONGEST_SEGMENT_S = 7 * 86400

Auth = dict[str, Any]


async def ensure_topics(
    servers: Sequence[str], auth: Auth, specs: Sequence[TopicSpec], replication: int
) -> None:
    """Create what is missing, verify what exists.

    Raises:
        ConfigError: a topic exists otherwise, cannot be made so, or the broker refuses who we are.
        BusUnavailableError: the broker cannot be reached.
    """
    admin = AIOKafkaAdminClient(
        bootstrap_servers=list(servers), request_timeout_ms=int(_TIMEOUT_S * 1000), **auth
    )
    try:
        try:
            await admin.start()
        except KafkaError:
            raise await _why_unreachable(servers, auth) from None
        try:
            await _Topics(admin, ",".join(servers)).ensure({spec.name: spec for spec in specs}, replication)
        except (KafkaError, TimeoutError) as exc:
            raise BusUnavailableError(f"Kafka at {','.join(servers)} did not answer: {exc!r}") from exc
    finally:
        await admin.close()


class _Topics:
    """What one cluster has."""

    def __init__(self, admin: AIOKafkaAdminClient, servers: str) -> None:
        self._admin = admin
        self._servers = servers

    async def ensure(self, specs: Mapping[str, TopicSpec], replication: int) -> None:
        # All topics, not ours by name: asking for a name may create it with the broker's defaults.
        existing = set(await self._partitions(None)) & set(specs)
        missing = [spec for name, spec in specs.items() if name not in existing]
        if missing:
            await self._create(missing, replication)
        found = await self._wait_for(specs)
        for name, spec in specs.items():
            if found[name] != spec.partitions:
                raise ConfigError(
                    f"topic {name} has {found[name]} partitions in Kafka at {self._servers}, the setting "
                    f"says {spec.partitions}: set broker.partitions to {found[name]}, or use another "
                    "broker.url or broker.topic_prefix"
                )
        await self._verify_configs([specs[name] for name in existing])

    async def _partitions(self, names: list[str] | None) -> dict[str, int]:
        """Partitions of the topics that are ready: each partition has a leader."""
        described = await self._admin.describe_topics(names)
        return {
            topic["topic"]: len(topic["partitions"])
            for topic in described
            if topic["error_code"] == 0 and all(p["error_code"] == 0 for p in topic["partitions"])
        }

    async def _wait_for(self, specs: Mapping[str, TopicSpec]) -> dict[str, int]:
        async with asyncio.timeout(_TIMEOUT_S):
            while True:
                found = await self._partitions(list(specs))
                if set(found) >= set(specs):
                    return found
                await asyncio.sleep(0.1)

    async def _create(self, specs: list[TopicSpec], replication: int) -> None:
        topics = [
            NewTopic(spec.name, spec.partitions, replication, topic_configs=topic_config(spec, replication))
            for spec in specs
        ]
        client = self._admin._client
        if client.cluster.controller is None:
            await client.force_metadata_update()
        if client.cluster.controller is None:
            # Stand-ins for Kafka have none, and create topics when they are asked about them.
            log.warning("Kafka at %s has no controller that could create topics", self._servers)
            return
        response = await self._admin.create_topics(topics, timeout_ms=int(_TIMEOUT_S * 1000))
        for name, code, *message in response.topic_errors:
            error = for_code(code)
            if code == 0:
                log.info("topic %s created", name)
            elif error is not TopicAlreadyExistsError:  # that: somebody was faster
                detail = message[0] if message and message[0] else error.description
                raise ConfigError(
                    f"cannot create topic {name} in Kafka at {self._servers} with broker.replication="
                    f"{replication}: {detail}"
                )

    async def _verify_configs(self, specs: list[TopicSpec]) -> None:
        """Existing topics keep their owner's settings; what would lose records is refused."""
        if not specs:
            return
        wanted = {"cleanup.policy": None, "retention.ms": None, "max.message.bytes": None}
        resources = [ConfigResource(ConfigResourceType.TOPIC, spec.name, wanted) for spec in specs]
        try:
            responses = await self._admin.describe_configs(resources)
        except IncompatibleBrokerVersion:
            return
        by_name = {spec.name: spec for spec in specs}
        for _, _, _, name, entries in (r for response in responses for r in response.resources):
            _verify(by_name[name], {entry[0]: entry[1] for entry in entries})


def _verify(spec: TopicSpec, config: Mapping[str, str]) -> None:
    policy = config.get("cleanup.policy")
    wanted = "compact" if spec.compact else "delete"
    if policy is not None and policy != wanted:
        raise ConfigError(
            f"topic {spec.name} has cleanup.policy={policy} and must have {wanted}: change it with "
            "kafka-configs, or use another broker.topic_prefix"
        )
    limit = config.get("max.message.bytes")
    if limit is not None and int(limit) < _MAX_MESSAGE_BYTES:
        raise ConfigError(
            f"topic {spec.name} has max.message.bytes={limit}, records have up to {MAX_RECORD_BYTES} bytes: "
            f"set it to {_MAX_MESSAGE_BYTES} or more with kafka-configs"
        )
    retention = config.get("retention.ms")
    if not spec.compact and retention is not None and retention != topic_config(spec, 1)["retention.ms"]:
        log.warning(
            "topic %s keeps its retention.ms=%s, the settings say %s",
            spec.name,
            retention,
            topic_config(spec, 1)["retention.ms"],
        )


def topic_config(spec: TopicSpec, replication: int) -> dict[str, str]:
    """Kafka's settings for a new topic."""
    config = {
        "cleanup.policy": "compact" if spec.compact else "delete",
        "max.message.bytes": str(_MAX_MESSAGE_BYTES),
        # One replica may be away without stopping us, where there are enough of them.
        "min.insync.replicas": str(max(1, min(2, replication - 1))),
    }
    if not spec.compact:
        config["retention.ms"] = "-1"
        if spec.retention_s is not None:
            config["retention.ms"] = str(int(spec.retention_s * 1000))
            # Kafka deletes whole segments, a week long by default.
            segment_s = min(_LONGEST_SEGMENT_S, max(_SHORTEST_SEGMENT_S, spec.retention_s / 4))
            config["segment.ms"] = str(int(segment_s * 1000))
    return config


async def _why_unreachable(servers: Sequence[str], auth: Auth) -> ConfigError | BusUnavailableError:
    """The cause of a failed start; aiokafka logs it and says only that there is one."""
    reasons = []
    for server in servers:
        host, _, port = server.rpartition(":")
        try:
            connection = await create_conn(
                host.strip("[]"), int(port), request_timeout_ms=int(_TIMEOUT_S * 1000), **auth
            )
        except (AuthenticationFailedError, SaslAuthenticationFailed) as exc:
            user = auth.get("sasl_plain_username")
            return ConfigError(
                f"Kafka at {server} refuses broker.sasl_username={user} or its password: {_text(exc)}"
            )
        except UnsupportedSaslMechanismError as exc:
            return ConfigError(
                f"Kafka at {server} does not take broker.sasl_mechanism={auth.get('sasl_mechanism')}: "
                f"{_text(exc)}"
            )
        except ssl.SSLError as exc:
            return _no_tls(server, exc)
        except (OSError, KafkaError, TimeoutError) as exc:
            if (alert := await _tls_alert(host.strip("[]"), int(port), auth.get("ssl_context"))) is not None:
                return _no_tls(server, alert)
            reasons.append(f"{server}: {_text(exc)}")
        else:
            connection.close()
            reasons.append(f"{server}: does not say who is in the cluster")
    security = auth.get("security_protocol")
    return BusUnavailableError(
        f"cannot reach Kafka, set by broker.url (with {security}): {'; '.join(reasons)}"
    )


def _no_tls(server: str, exc: ssl.SSLError) -> ConfigError:
    return ConfigError(
        f"no TLS with Kafka at {server}: {exc}; see broker.tls, broker.tls_ca_file and broker.tls_cert_file"
    )


async def _tls_alert(host: str, port: int, context: ssl.SSLContext | None) -> ssl.SSLError | None:
    """What the other side says of our certificate. With TLS 1.3 it does so behind the handshake, when
    aiokafka sees only that the connection is closed."""
    if context is None:
        return None
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
            try:
                await reader.read(1)
            finally:
                writer.transport.abort()
    except ssl.SSLError as exc:
        return exc
    except (OSError, TimeoutError):
        return None
    return None


def _text(exc: BaseException) -> str:
    if isinstance(exc, BrokerResponseError) and not exc.args:
        return str(exc.description)
    return str(exc) or type(exc).__name__
