"""Fixtures shared by folders: the real parts.

A part that is not installed skips its tests on a laptop, with the command that installs it. With
CI=true nothing is skipped: there a missing part is an error (see parts/part.py).
"""

import uuid
from collections.abc import Iterator

import pytest

from parts import kafka as kafka_part


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kafka_part.Cluster]:
    """One Kafka node for the whole run. Tests share it: name topics and groups by `topic_prefix`."""
    with kafka_part.cluster(tmp_path_factory.mktemp("kafka")) as cluster:
        yield cluster


@pytest.fixture
def topic_prefix() -> str:
    """A prefix of topics that no other test has."""
    return f"t{uuid.uuid4().hex[:10]}"
