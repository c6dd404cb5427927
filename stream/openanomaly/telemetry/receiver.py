"""What the receiver counts."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from openanomaly.telemetry.scales import SECONDS


class ReceiverMetrics:
    """What the receiver took, published and dropped."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "openanomaly_receiver_requests_total",
            "Write requests by message version and answer.",
            ["version", "code"],
            registry=registry,
        )
        self.body_bytes = Counter(
            "openanomaly_receiver_body_bytes_total", "Compressed bytes received.", registry=registry
        )
        self.samples = Counter(
            "openanomaly_receiver_samples_total", "Samples in decoded requests.", registry=registry
        )
        self.published = Counter(
            "openanomaly_receiver_samples_published_total",
            "Samples that the broker has confirmed.",
            registry=registry,
        )
        self.labelled = Counter(
            "openanomaly_receiver_labels_published_total",
            "Label sets that went along with samples.",
            registry=registry,
        )
        self.dropped = Counter(
            "openanomaly_receiver_samples_dropped_total",
            "Samples that were not published, by reason.",
            ["reason"],
            registry=registry,
        )
        for reason in ("unselected", "replica", "future", "refused", "unavailable"):
            self.dropped.labels(reason)
        self.failovers = Counter(
            "openanomaly_receiver_failovers_total",
            "Times that another replica of a high-availability pair was listened to from then on.",
            registry=registry,
        )
        self.ignored = Counter(
            "openanomaly_receiver_ignored_total",
            "Native histograms, exemplars and metadata: accepted, not scored.",
            ["kind"],
            registry=registry,
        )
        for kind in ("histograms", "exemplars", "metadata"):
            self.ignored.labels(kind)
        self.in_flight_bytes = Gauge(
            "openanomaly_receiver_in_flight_bytes", "Unpacked bytes of requests in work.", registry=registry
        )
        self.frame_bytes = Histogram(
            "openanomaly_receiver_frame_bytes",
            "Size of frames written to the broker.",
            buckets=[1 << i for i in range(8, 21)],
            registry=registry,
        )
        self.publish_seconds = Histogram(
            "openanomaly_receiver_publish_seconds",
            "From a decoded request to the broker's confirmation.",
            buckets=SECONDS,
            registry=registry,
        )
        self.known_series = Gauge(
            "openanomaly_receiver_known_series",
            "Label blocks whose identity is remembered.",
            registry=registry,
        )
