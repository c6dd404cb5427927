"""What pull mode counts."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from openanomaly.telemetry.scales import SECONDS


class PullMetrics:
    """What pull mode asked, scored and wrote."""

    def __init__(self, registry: CollectorRegistry) -> None:
        by = ["pipeline"]
        self.runs = Counter(
            "openanomaly_pull_runs_total",
            "Runs by outcome: ok, refused (the query), unavailable (who is asked), target (who is written "
            "to), crashed.",
            ["pipeline", "outcome"],
            registry=registry,
        )
        self.late_runs = Counter(
            "openanomaly_pull_late_runs_total",
            "Runs that were left out because the one before was still at work; a later one does their steps.",
            by,
            registry=registry,
        )
        self.steps = Counter(
            "openanomaly_pull_steps_total", "Steps asked for and answered.", by, registry=registry
        )
        self.skipped = Counter(
            "openanomaly_pull_steps_skipped_total",
            "Steps left out: missed for longer than pull.catch_up_s.",
            by,
            registry=registry,
        )
        self.samples = Counter("openanomaly_pull_samples_total", "Samples in answers.", by, registry=registry)
        self.lost = Counter(
            "openanomaly_pull_samples_dropped_total",
            "Samples that are not in windows, by reason.",
            ["reason"],
            registry=registry,
        )
        for reason in PULL_LOST:
            self.lost.labels(reason)
        self.scores = Counter(
            "openanomaly_pull_scores_total", "Scores that were made.", by, registry=registry
        )
        self.written = Counter(
            "openanomaly_pull_scores_written_total",
            "Scores that the target has taken.",
            by,
            registry=registry,
        )
        self.dropped = Counter(
            "openanomaly_pull_scores_dropped_total",
            "Scores that were not written, by reason; `history`: of before the pipeline was new.",
            ["reason"],
            registry=registry,
        )
        for reason in ("history", "no_target", "rejected", "silent", "timestamp", "unknown"):
            self.dropped.labels(reason)
        self.pending = Gauge(
            "openanomaly_pull_scores_pending", "Scores that wait for the target.", by, registry=registry
        )
        self.series = Gauge("openanomaly_pull_series", "Series that are watched.", by, registry=registry)
        self.newest = Gauge(
            "openanomaly_pull_newest_step_timestamp_seconds",
            "Time of the newest step that was scored.",
            by,
            registry=registry,
        )
        self.requests = Counter(
            "openanomaly_pull_requests_total",
            "Requests by answer; `error` where there was none.",
            ["request", "code"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "openanomaly_pull_request_seconds",
            "Time for an answer.",
            ["request"],
            buckets=SECONDS,
            registry=registry,
        )


PULL_LOST = (
    "duplicate",
    "late",
    "max_series",
    "not_finite",
    "out_of_order",
    "stale",
    "timestamp",
    "unselected",
)
"""Names in the counts of windows that are reasons for which samples are not in them."""
