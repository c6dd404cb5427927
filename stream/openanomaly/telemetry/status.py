"""What the status page counts."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class StatusMetrics:
    """What the status page was told; read when somebody asks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def watch(self, counts: Callable[[], Mapping[str, int]], gauges: Callable[[], Mapping[str, int]]) -> None:
        """Publish what these return at each scrape."""
        self._registry.register(_StatusCollector(counts, gauges))


_STATUS_SCORES = ("taken", "repeated", "left_out")
"""Outcomes of a score; they add up to `in`."""
_STATUS_RECORDS = {"records": "taken", "rejected": "rejected", "missed": "missed"}
_STATUS_GAUGES = {
    "series": "Series that have scores, and are not beyond status.series_limit.",
    "series_anomalous": "Those in an episode as of their newest step.",
    "series_untracked": "Those of them that are counted and not shown: raise status.anomalies_limit.",
    "series_without_forecast": "Series whose newest step was judged without a forecast.",
    "unread_records": "Score frames that the page has not read yet.",
    "is_connected": "1 while the page reads scores.",
}


class _StatusCollector(Collector):
    def __init__(
        self, counts: Callable[[], Mapping[str, int]], gauges: Callable[[], Mapping[str, int]]
    ) -> None:
        self._counts, self._gauges = counts, gauges

    def collect(self) -> Iterable[Metric]:
        counts = self._counts()
        yield CounterMetricFamily(
            "openanomaly_status_scores", "Scores that the page read.", value=counts.get("in", 0)
        )
        outcomes = CounterMetricFamily(
            "openanomaly_status_scores_outcome", "What became of them.", labels=["outcome"]
        )
        for outcome in _STATUS_SCORES:
            outcomes.add_metric([outcome], counts.get(outcome, 0))
        yield outcomes
        records = CounterMetricFamily(
            "openanomaly_status_records",
            "Score frames that were read, could not be used, or were deleted before.",
            labels=["outcome"],
        )
        for key, outcome in _STATUS_RECORDS.items():
            records.add_metric([outcome], counts.get(key, 0))
        yield records
        for name, value in self._gauges().items():
            yield GaugeMetricFamily(f"openanomaly_status_{name}", _STATUS_GAUGES[name], value=value)
