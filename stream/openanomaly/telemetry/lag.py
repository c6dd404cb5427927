"""How far roles are behind."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector


class LagMetrics:
    """Unread records of every role: high-water mark less consumed position, never the committed one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.records = Gauge(
            "openanomaly_lag_records", "Records not yet read.", ["role", "topic"], registry=registry
        )
        self.oldest_seconds = Gauge(
            "openanomaly_oldest_unread_seconds",
            "How long the oldest record that is not yet read has been there.",
            ["role", "topic"],
            registry=registry,
        )
        self._expired: dict[str, Callable[[], Mapping[str, int]]] = {}
        registry.register(_ExpiredCollector(self._expired))

    def watch(self, role: str, expired: Callable[[], Mapping[str, int]]) -> None:
        """Publish at each scrape how many records of each topic a role has lost to retention."""
        self._expired[role] = expired


class _ExpiredCollector(Collector):
    def __init__(self, expired: Mapping[str, Callable[[], Mapping[str, int]]]) -> None:
        self._expired = expired

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(
            "openanomaly_records_expired",
            "Records that retention deleted before they were read: lost. Raise the topic's retention.",
            labels=["role", "topic"],
        )
        for role, expired in self._expired.items():
            for topic, records in expired().items():
                family.add_metric([role, topic], records)
        yield family
