"""librdkafka's mock broker: the Kafka protocol in this process, without a JVM. Starts in milliseconds."""

import contextlib
import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import confluent_kafka

_PRODUCER = 0
_TEXT_BYTES = 512


@dataclass(frozen=True, slots=True)
class MockKafka:
    """A running mock cluster.

    Attributes:
        address: its bootstrap addresses.
    """

    address: str
    _kafka: Any
    _cluster: int

    def refuse(self, api_key: int, error: int) -> None:
        """Answer the next request of a kind with an error; both by their numbers in the protocol."""
        self._kafka.rd_kafka_mock_push_request_errors_array(
            self._cluster, api_key, 1, (ctypes.c_int * 1)(error)
        )

    def delay(self, seconds: float) -> None:
        """Answer every request from now on after so long; the first broker, which is the only one."""
        assert self._kafka.rd_kafka_mock_broker_set_rtt(self._cluster, 1, int(seconds * 1000)) == 0


@contextlib.contextmanager
def mock_kafka(brokers: int = 1) -> Iterator[MockKafka]:
    """A running mock cluster.

    Groups form at once, as on our real Kafka: by default the mock waits 3 s for further members.
    """
    kafka = _librdkafka()
    text = ctypes.create_string_buffer(_TEXT_BYTES)
    conf = kafka.rd_kafka_conf_new()
    for name, value in ((b"test.mock.num.brokers", b"%d" % brokers), (b"log_level", b"0")):
        assert kafka.rd_kafka_conf_set(conf, name, value, text, _TEXT_BYTES) == 0, text.value
    # The cluster lives as long as the client that carries it.
    carrier = kafka.rd_kafka_new(_PRODUCER, conf, text, _TEXT_BYTES)
    assert carrier, text.value
    try:
        cluster = kafka.rd_kafka_handle_mock_cluster(carrier)
        kafka.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0)
        yield MockKafka(kafka.rd_kafka_mock_cluster_bootstraps(cluster).decode(), kafka, cluster)
    finally:
        kafka.rd_kafka_destroy(carrier)


def _librdkafka() -> ctypes.CDLL:
    """The library in confluent-kafka's wheel, which has no Python names for what we need."""
    packages = Path(confluent_kafka.__file__).parents[1]
    found = next(p for p in packages.glob("confluent_kafka*/**/librdkafka*") if ".so" in p.name)
    kafka = ctypes.CDLL(str(found))
    pointer = ctypes.c_void_p
    kafka.rd_kafka_conf_new.restype = pointer
    kafka.rd_kafka_conf_set.argtypes = [
        pointer,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_size_t,
    ]
    kafka.rd_kafka_new.argtypes = [ctypes.c_int, pointer, ctypes.c_char_p, ctypes.c_size_t]
    kafka.rd_kafka_new.restype = pointer
    kafka.rd_kafka_handle_mock_cluster.argtypes = [pointer]
    kafka.rd_kafka_handle_mock_cluster.restype = pointer
    kafka.rd_kafka_mock_group_initial_rebalance_delay_ms.argtypes = [pointer, ctypes.c_int32]
    kafka.rd_kafka_mock_broker_set_rtt.argtypes = [pointer, ctypes.c_int32, ctypes.c_int]
    kafka.rd_kafka_mock_push_request_errors_array.argtypes = [
        pointer,
        ctypes.c_int16,
        ctypes.c_size_t,
        ctypes.POINTER(ctypes.c_int),
    ]
    kafka.rd_kafka_mock_push_request_errors_array.restype = None
    kafka.rd_kafka_mock_cluster_bootstraps.argtypes = [pointer]
    kafka.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    kafka.rd_kafka_destroy.argtypes = [pointer]
    kafka.rd_kafka_destroy.restype = None
    return kafka
