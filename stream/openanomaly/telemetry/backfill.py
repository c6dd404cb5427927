"""What the past of new series counts."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from openanomaly.telemetry.scales import SECONDS


class BackfillMetrics:
    """What new series got of their past."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.series = Counter(
            "openanomaly_backfill_series_total",
            "New series by what became of their past: learned, without (there is none), refused (the query), "
            "failed (a mistake of ours, in the log).",
            ["result"],
            registry=registry,
        )
        for result in ("learned", "without", "refused", "failed"):
            self.series.labels(result)
        self.samples = Counter(
            "openanomaly_backfill_samples_total", "Stored samples that were read.", registry=registry
        )
        self.waiting = Gauge(
            "openanomaly_backfill_waiting_series", "New series that wait for their past.", registry=registry
        )
        self.seconds = Histogram(
            "openanomaly_backfill_seconds",
            "From the request of some series' past until it was learned.",
            buckets=SECONDS,
            registry=registry,
        )
