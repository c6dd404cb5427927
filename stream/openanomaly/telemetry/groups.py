"""What is counted of groups."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from openanomaly.telemetry.scales import PASSED_OVER


class GroupMetrics:
    """Shares of groups, from the counts of partitions to their scores."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.shares = Counter(
            "openanomaly_groups_shares_total",
            "Shares of groups that were made of counts, by whether every partition had told in time.",
            ["counts"],
            registry=registry,
        )
        for counts in ("complete", "incomplete"):
            self.shares.labels(counts)
        self.late = Counter(
            "openanomaly_groups_late_total",
            "Counts of groups that came behind a newer share of their group.",
            registry=registry,
        )
        self.rejected = Counter(
            "openanomaly_groups_rejected_total",
            f"Records of counts passed over: {PASSED_OVER}.",
            registry=registry,
        )
        self._registry = registry

    def watch(self, counts: Callable[[], Mapping[str, int]], groups: Callable[[], int]) -> None:
        """Publish at each scrape what windows did with shares, and how many groups they have."""
        self._registry.register(_Collector(counts, groups))


_EVENTS = {
    "accepted": ("shares_taken", "Shares that became a step."),
    "scored": ("scores", "Shares that got a score."),
    "emitted": (
        "scores_emitted",
        "Shares sent to the sink, those that are too young for a score among them.",
    ),
    "due": ("contexts", "Contexts of shares sent to inference."),
    "episodes": ("episodes", "Episodes of groups that began."),
    "refused": ("series_refused", "Series in no group since their pipeline has too many in a partition."),
}
_REPEATED = ("duplicate", "out_of_order", "late", "replayed")
"""Of shares that were written again after a crash."""


class _Collector(Collector):
    def __init__(self, counts: Callable[[], Mapping[str, int]], groups: Callable[[], int]) -> None:
        self._counts, self._groups = counts, groups

    def collect(self) -> Iterable[Metric]:
        counts = self._counts()
        for key, (name, text) in _EVENTS.items():
            yield CounterMetricFamily(f"openanomaly_groups_{name}", text, value=counts.get(key, 0))
        repeated = sum(counts.get(reason, 0) for reason in _REPEATED)
        yield CounterMetricFamily(
            "openanomaly_groups_shares_repeated", "Shares that windows had already.", value=repeated
        )
        yield GaugeMetricFamily(
            "openanomaly_groups", "Groups that have a share, once per pipeline.", value=self._groups()
        )
