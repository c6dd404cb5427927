"""What the API of pipelines counts."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from openanomaly.telemetry.scales import SECONDS


class ApiMetrics:
    """What callers of the API asked for."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "openanomaly_api_requests_total",
            "Requests by path and status.",
            ["path", "code"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "openanomaly_api_request_seconds",
            "Time until a request is answered.",
            ["path"],
            buckets=SECONDS,
            registry=registry,
        )
        self.previews = Counter(
            "openanomaly_api_previews_total", "Previews by their end.", ["outcome"], registry=registry
        )
        for outcome in ("done", "failed", "left", "refused"):
            self.previews.labels(outcome)
