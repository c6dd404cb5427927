"""Our own metrics.

Every room counts what came in, what went out, and what was dropped by reason; the three add up.
Metrics live in a registry that is passed in: nothing is registered at import.
"""

import time

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector

from openanomaly.telemetry.api import ApiMetrics
from openanomaly.telemetry.backfill import BackfillMetrics
from openanomaly.telemetry.groups import GroupMetrics
from openanomaly.telemetry.inference import InferenceMetrics
from openanomaly.telemetry.lag import LagMetrics
from openanomaly.telemetry.playground import PlaygroundMetrics
from openanomaly.telemetry.pull import PULL_LOST, PullMetrics
from openanomaly.telemetry.receiver import ReceiverMetrics
from openanomaly.telemetry.reload import ReloadMetrics
from openanomaly.telemetry.sink import SinkMetrics
from openanomaly.telemetry.status import StatusMetrics
from openanomaly.telemetry.window import WindowMetrics


class Telemetry:
    """The metrics of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.receiver = ReceiverMetrics(self.registry)
        self.window = WindowMetrics(self.registry)
        self.groups = GroupMetrics(self.registry)
        self.inference = InferenceMetrics(self.registry)
        self.sink = SinkMetrics(self.registry)
        self.status = StatusMetrics(self.registry)
        self.lag = LagMetrics(self.registry)
        self.reload = ReloadMetrics(self.registry)
        self.backfill = BackfillMetrics(self.registry)
        self.api = ApiMetrics(self.registry)
        self.playground = PlaygroundMetrics(self.registry)
        self.pull = PullMetrics(self.registry)
        self.is_ready = Gauge(
            "openanomaly_ready", "1 while the process is ready, by role.", ["role"], registry=self.registry
        )
        self.started = Gauge(
            "openanomaly_start_time_seconds", "When the process started.", registry=self.registry
        )
        self.started.set(time.time())


__all__ = [
    "PULL_LOST",
    "ApiMetrics",
    "BackfillMetrics",
    "GroupMetrics",
    "InferenceMetrics",
    "LagMetrics",
    "PlaygroundMetrics",
    "PullMetrics",
    "ReceiverMetrics",
    "ReloadMetrics",
    "SinkMetrics",
    "StatusMetrics",
    "Telemetry",
    "WindowMetrics",
]
