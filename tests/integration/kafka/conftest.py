"""Brokers that speak Kafka's protocol, with two workers of a role on each."""

import dataclasses

import pytest

from integration.broker.buses import Bus
from integration.broker.conftest import kafka_bus, mock_address, mock_bus

__all__ = ["kafka_bus", "mock_address", "mock_bus"]


@pytest.fixture(params=["mock", "kafka"])
def standby_bus(request: pytest.FixtureRequest) -> Bus:
    """Each broker that has groups, with one standby copy of every table."""
    found: Bus = request.getfixturevalue(f"{request.param}_bus")
    return dataclasses.replace(found, config=dataclasses.replace(found.config, standby_replicas=1))
