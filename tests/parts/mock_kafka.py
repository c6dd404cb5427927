"""librdkafka's mock broker: the Kafka protocol in this process, without a JVM. Starts in milliseconds."""

import contextlib
from collections.abc import Iterator

from confluent_kafka import Producer


@contextlib.contextmanager
def mock_kafka(brokers: int = 1) -> Iterator[str]:
    """A running mock cluster; gives its bootstrap addresses."""
    # The cluster lives as long as the client that carries it.
    carrier = Producer({"bootstrap.servers": "ignored", "test.mock.num.brokers": brokers, "log_level": 0})
    known = carrier.list_topics(timeout=10).brokers.values()
    yield ",".join(f"{broker.host}:{broker.port}" for broker in known)
    del carrier
