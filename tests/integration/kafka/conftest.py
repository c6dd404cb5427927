"""Kafka with two workers of a role. The mock broker's groups do not take a second member reliably."""

import dataclasses

import pytest

from integration.broker.buses import Bus
from integration.broker.conftest import kafka_bus

__all__ = ["kafka_bus"]


@pytest.fixture
def standby_bus(kafka_bus: Bus) -> Bus:
    """With one standby copy of every table."""
    return dataclasses.replace(kafka_bus, config=dataclasses.replace(kafka_bus.config, standby_replicas=1))
