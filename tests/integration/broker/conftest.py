"""The brokers, each started once."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from faust.tables.manager import TableManager

from integration.broker.buses import PARTITIONS, Bus
from openanomaly.broker.faust_app import BrokerConfig
from parts.mock_kafka import MockKafka, mock_kafka


@pytest.fixture(scope="session")
def mock() -> Iterator[MockKafka]:
    with mock_kafka() as cluster:
        yield cluster


@pytest.fixture
def embedded_bus(tmp_path: Path, topic_prefix: str) -> Bus:
    url = f"embedded://{tmp_path / 'broker'}"
    return Bus("embedded", BrokerConfig(url, partitions=PARTITIONS, topic_prefix=topic_prefix))


@pytest.fixture
def mock_bus(mock: MockKafka, topic_prefix: str) -> Bus:
    # A mock group that had a member before waits a second less than this for others.
    config = BrokerConfig(
        f"kafka://{mock.address}", partitions=PARTITIONS, topic_prefix=topic_prefix, session_timeout_s=2
    )
    return Bus("mock", config)


@pytest.fixture
def kafka_bus(request: pytest.FixtureRequest, topic_prefix: str) -> Bus:
    cluster = request.getfixturevalue("kafka")
    config = BrokerConfig(cluster.url, partitions=PARTITIONS, topic_prefix=topic_prefix, session_timeout_s=6)
    return Bus("kafka", config, cluster)


@pytest.fixture(params=["embedded", "mock", "kafka"])
def bus(request: pytest.FixtureRequest) -> Bus:
    """Each of the three brokers."""
    found: Bus = request.getfixturevalue(f"{request.param}_bus")
    return found


@pytest.fixture(params=["embedded", "kafka"])
def durable_bus(request: pytest.FixtureRequest) -> Bus:
    """The brokers that delete records and keep settings of topics."""
    found: Bus = request.getfixturevalue(f"{request.param}_bus")
    return found


@pytest.fixture
def tables_that_start_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faust's tables wait a second, whatever for, at each start of a process, ours too."""

    async def sleep(self: TableManager, seconds: float) -> None:
        await asyncio.sleep(seconds / 10)

    monkeypatch.setattr(TableManager, "sleep", sleep)
