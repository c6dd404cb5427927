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
            "Shares of groups, by whether every partition was through their step in time.",
            ["counts"],
            registry=registry,
        )
        for counts in ("complete", "incomplete"):
            self.shares.labels(counts)
        self.left_out = Counter(
            "openanomaly_groups_left_out_total",
            "Steps of groups without a share: `late` ones came behind a newer one, `small` ones have too few "
            "series with a score.",
            ["reason"],
            registry=registry,
        )
        for reason in ("late", "small"):
            self.left_out.labels(reason)
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
    "in": ("shares_in", "Shares that came into windows."),
    "accepted": ("shares_taken", "Shares that became a step."),
    "scored": ("scores", "Shares that got a score."),
    "emitted": (
        "scores_emitted",
        "Shares sent to the sink, those that are too young for a score among them.",
    ),
    "due": ("contexts", "Contexts of shares sent to inference."),
    "episodes": ("episodes", "Episodes of groups that began."),
    "ungrouped": ("series_refused", "Series in no group since their pipeline has too many in a partition."),
}
_DROPS = (
    "duplicate",
    "out_of_order",
    "late",
    "replayed",
    "timestamp",
    "max_series",
    "unlabelled",
    "unselected",
)
"""Of shares; those that came again after a crash are the first ones of these."""


class _Collector(Collector):
    def __init__(self, counts: Callable[[], Mapping[str, int]], groups: Callable[[], int]) -> None:
        self._counts, self._groups = counts, groups

    def collect(self) -> Iterable[Metric]:
        counts = self._counts()
        for key, (name, text) in _EVENTS.items():
            yield CounterMetricFamily(f"openanomaly_groups_{name}", text, value=counts.get(key, 0))
        dropped = CounterMetricFamily(
            "openanomaly_groups_shares_dropped",
            "Shares that did not go into windows, by reason.",
            labels=["reason"],
        )
        for reason in _DROPS:
            dropped.add_metric([reason], counts.get(reason, 0))
        yield dropped
        yield GaugeMetricFamily(
            "openanomaly_groups", "Groups that have a share, once per pipeline.", value=self._groups()
        )
