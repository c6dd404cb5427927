"""Fixtures shared by folders: the real parts.

A part that is not installed skips its tests on a laptop, with the command that installs it. With
CI=true nothing is skipped: there a missing part is an error (see parts/part.py).
"""

import gc
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from parts import exporters, victoria
from parts import kafka as kafka_part
from parts.part import is_ci

if TYPE_CHECKING:
    from parts.browser import Browser


_BROKERS = {"kafka", "mock", "bus", "durable_bus", "kafka_bus", "mock_bus"}
"""Fixtures that are a broker, or lead to one."""


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kafka_part.Cluster]:
    """One Kafka node for the whole run. Tests share it: name topics and groups by `topic_prefix`."""
    with kafka_part.cluster(tmp_path_factory.mktemp("kafka")) as cluster:
        yield cluster


@pytest.fixture
def topic_prefix() -> str:
    """A prefix of topics that no other test has."""
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture
def victoria_metrics(tmp_path: Path) -> Iterator[victoria.VictoriaMetrics]:
    """An empty VictoriaMetrics."""
    with victoria.victoria_metrics(tmp_path) as store:
        yield store


@pytest.fixture
def node_exporter(tmp_path: Path) -> Iterator[str]:
    """HOST:PORT of a node_exporter."""
    with exporters.node_exporter(tmp_path) as address:
        yield address


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Browser"]:
    """One browser for the whole run."""
    from parts.browser import browser  # with selenium, which few tests need

    with browser(tmp_path_factory.mktemp("browser")) as window:
        yield window


@pytest.fixture(autouse=True)
def _leaks_are_found_where_they_are_made(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test with a broker leaves open fails that test, and not the one that is running when it
    is collected."""
    yield
    if _BROKERS & set(request.fixturenames):
        gc.collect()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With CI=true a skipped test is a failed one."""
    report = yield
    if is_ci() and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"CI must not skip: {report.longrepr}"
    return report
