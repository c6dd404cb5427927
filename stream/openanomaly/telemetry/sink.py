"""What the sink counts."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from openanomaly.telemetry.scales import PASSED_OVER, SAMPLES, SECONDS


class SinkMetrics:
    """What was written to the target."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.scores = Counter("openanomaly_sink_scores_total", "Scores that came in.", registry=registry)
        self.written = Counter(
            "openanomaly_sink_scores_written_total", "Scores that the target has taken.", registry=registry
        )
        self.samples = Counter(
            "openanomaly_sink_samples_written_total",
            "Samples that the target has taken: several a score where bands are written too.",
            registry=registry,
        )
        self.dropped = Counter(
            "openanomaly_sink_scores_dropped_total",
            "Scores that were not written, by reason.",
            ["reason"],
            registry=registry,
        )
        for reason in ("no_target", "rejected", "silent", "timestamp", "unknown"):
            self.dropped.labels(reason)
        self.requests = Counter(
            "openanomaly_sink_requests_total",
            "Write requests by answer; `error` where there was none.",
            ["code"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "openanomaly_sink_request_seconds",
            "Time of the target for a request.",
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_samples = Histogram(
            "openanomaly_sink_batch_samples",
            "Samples of a write request, before any of them is split off.",
            buckets=SAMPLES,
            registry=registry,
        )
        self.queue_wait_seconds = Histogram(
            "openanomaly_sink_queue_wait_seconds",
            "From the arrival of a score frame until its request began.",
            buckets=SECONDS,
            registry=registry,
        )
        self.rejected = Counter(
            "openanomaly_sink_rejected_total", f"Score frames passed over: {PASSED_OVER}.", registry=registry
        )
        self.latency = Histogram(
            "openanomaly_score_latency_seconds",
            "From the closing of a step to its score at the target.",
            buckets=SECONDS,
            registry=registry,
        )
        self.is_up = Gauge(
            "openanomaly_sink_target_up", "1 while the target takes scores.", registry=registry
        )
