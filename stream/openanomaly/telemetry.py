"""Our own metrics.

Every room counts what came in, what went out, and what was dropped by reason; the three add up.
Metrics live in a registry that is passed in: nothing is registered at import.
"""

import time
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_SAMPLES = (1, 10, 100, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 1_000_000)
_PASSED_OVER = "they could not be read or crashed their worker, and are in the dead-letter topic"
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


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
            buckets=_SECONDS,
            registry=registry,
        )
        self.known_series = Gauge(
            "openanomaly_receiver_known_series",
            "Label blocks whose identity is remembered.",
            registry=registry,
        )


class InferenceMetrics:
    """What the batcher did (core/services/micro_batcher.py, Observer)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.contexts = Counter(
            "openanomaly_inference_contexts_total", "Contexts that came in.", registry=registry
        )
        self.forecasts = Counter(
            "openanomaly_inference_forecasts_total", "Series that got a forecast.", registry=registry
        )
        self.dropped_total = Counter(
            "openanomaly_inference_dropped_total",
            "Contexts without a forecast, by reason.",
            ["reason"],
            registry=registry,
        )
        for reason in ("stale", "unknown_model", "memory", "engine", "exception", "nan", "shape"):
            self.dropped_total.labels(reason)
        self.rejected = Counter(
            "openanomaly_inference_rejected_total",
            f"Due frames passed over: {_PASSED_OVER}.",
            registry=registry,
        )
        self.batch_rows = Histogram(
            "openanomaly_inference_batch_rows",
            "Rows of a batch.",
            ["model"],
            buckets=_ROWS,
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "openanomaly_inference_batch_seconds",
            "Time of the engine for a batch.",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_steps = Counter(
            "openanomaly_inference_batch_steps_total",
            "Steps of all contexts that the engine went over, padding included.",
            ["model"],
            registry=registry,
        )
        self.padding_steps = Counter(
            "openanomaly_inference_padding_steps_total",
            "Those of them that belong to no context: what its shape costs a batch.",
            ["model"],
            registry=registry,
        )
        self.queue_wait_seconds = Histogram(
            "openanomaly_inference_queue_wait_seconds",
            "From the arrival of a context until its batch was cut.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.waiting = Gauge(
            "openanomaly_inference_waiting_rows", "Contexts that wait or are in work.", registry=registry
        )

    def batch(self, model: str, rows: int, seconds: float, steps: int, padding: int) -> None:
        self.batch_steps.labels(model).inc(steps)
        self.padding_steps.labels(model).inc(padding)
        self.batch_rows.labels(model).observe(rows)
        self.batch_seconds.labels(model).observe(seconds)

    def waited(self, seconds: float, rows: int) -> None:
        self.queue_wait_seconds.observe(seconds)

    def forecast(self, rows: int) -> None:
        self.forecasts.inc(rows)

    def dropped(self, reason: str, rows: int) -> None:
        self.dropped_total.labels(reason).inc(rows)


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
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_samples = Histogram(
            "openanomaly_sink_batch_samples",
            "Samples of a write request, before any of them is split off.",
            buckets=_SAMPLES,
            registry=registry,
        )
        self.queue_wait_seconds = Histogram(
            "openanomaly_sink_queue_wait_seconds",
            "From the arrival of a score frame until its request began.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.rejected = Counter(
            "openanomaly_sink_rejected_total", f"Score frames passed over: {_PASSED_OVER}.", registry=registry
        )
        self.latency = Histogram(
            "openanomaly_score_latency_seconds",
            "From the closing of a step to its score at the target.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.is_up = Gauge(
            "openanomaly_sink_target_up", "1 while the target takes scores.", registry=registry
        )


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
        self.unforecast = Counter(
            "openanomaly_pull_contexts_dropped_total",
            "Contexts without a forecast, by reason.",
            ["reason"],
            registry=registry,
        )
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
            buckets=_SECONDS,
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


class WindowMetrics:
    """What window workers did; the lanes count in plain objects, read when somebody asks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.rejected = Counter(
            "openanomaly_window_rejected_total",
            f"Frames of samples and forecasts passed over: {_PASSED_OVER}.",
            ["topic"],
            registry=registry,
        )
        for topic in ("samples", "forecasts"):
            self.rejected.labels(topic)
        self.frame_samples = Histogram(
            "openanomaly_window_frame_samples",
            "Samples of a frame from the receiver.",
            buckets=_SAMPLES,
            registry=registry,
        )
        self.queue_wait_seconds = Histogram(
            "openanomaly_window_queue_wait_seconds",
            "From the writing of a frame of samples until its samples go into windows.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._registry = registry

    def watch(
        self, counts: Callable[[], Mapping[str, int]], gauges: Callable[[], Mapping[str, float]]
    ) -> None:
        """Publish what these return at each scrape."""
        self._registry.register(_WindowCollector(counts, gauges))


_DROPS = (
    "duplicate",
    "out_of_order",
    "late",
    "timestamp",
    "stale",
    "not_finite",
    "counter_start",
    "counter_reset",
    "max_series",
    "unlabelled",
    "unselected",
    "replayed",
)
"""Outcomes of a sample besides `accepted`; with it they add up to `in`."""
_EVENTS = {
    "in": ("samples", "Samples that came in, once per window specification."),
    "accepted": ("samples_accepted", "Samples that went into windows."),
    "closed_steps": ("steps_closed", "Steps that closed."),
    "missing_steps": ("steps_missing", "Steps a series should have had, in its own interval."),
    "overflow_steps": (
        "steps_overflowed",
        "Steps whose samples add up to more than a number holds: they count as missing.",
    ),
    "scored": ("scores", "Steps that got a score."),
    "unforecast": (
        "scores_without_forecast",
        "Scores of steps that had no forecast: inference is away, or the series is young.",
    ),
    "warmup": ("steps_in_warmup", "Steps of series too young for a score."),
    "muted": ("steps_ignored", "Steps in mute windows that do not learn: no score."),
    "anomalous": ("steps_anomalous", "Steps inside an episode."),
    "episodes": ("episodes", "Episodes that began."),
    "emitted": ("scores_emitted", "Scores sent to the sink."),
    "due": ("contexts", "Contexts sent to inference."),
    "forecasts": ("forecasts_applied", "Forecasts taken over."),
    "admitted": ("series_admitted", "Series that got a row."),
    "evicted": ("series_evicted", "Series that lost their row for being idle, or wanted no more."),
    "backfilled": ("series_backfilled", "New series whose past was put under their first steps."),
}
_GAUGES = {
    "series": "Series that have a row.",
    "series_with_forecast": "Series that have a forecast for their next step, once per forecaster.",
    "partitions": "Partitions this process works on.",
    "partitions_replaying": "Partitions that read again what was read before a restart.",
    "row_state_bytes": "Bytes of a series' state besides its steps and bands.",
}
_SUMS = {
    "busy_seconds": "Time spent on computing.",
    "checkpoints": "Checkpoints written: offsets are released with them.",
}
"""Told among the gauges, and counters all the same."""


class _WindowCollector(Collector):
    def __init__(
        self, counts: Callable[[], Mapping[str, int]], gauges: Callable[[], Mapping[str, float]]
    ) -> None:
        self._counts, self._gauges = counts, gauges

    def collect(self) -> Iterable[Metric]:
        counts = self._counts()
        for key, (name, text) in _EVENTS.items():
            yield CounterMetricFamily(f"openanomaly_window_{name}", text, value=counts.get(key, 0))
        dropped = CounterMetricFamily(
            "openanomaly_window_samples_dropped",
            "Samples that did not go into windows, by reason.",
            labels=["reason"],
        )
        for reason in _DROPS:
            dropped.add_metric([reason], counts.get(reason, 0))
        yield dropped
        for name, value in self._gauges().items():
            full = f"openanomaly_window_{name}"
            if name in _SUMS:
                yield CounterMetricFamily(full, _SUMS[name], value=value)
            else:
                yield GaugeMetricFamily(full, _GAUGES.get(name, name), value=value)


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


class BackfillMetrics:
    """What new series got of their past."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.series = Counter(
            "openanomaly_backfill_series_total",
            "New series by what the database had of them: learned, without (nothing), refused (the query).",
            ["result"],
            registry=registry,
        )
        for result in ("learned", "without", "refused"):
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
            buckets=_SECONDS,
            registry=registry,
        )


class ReloadMetrics:
    """Changes of pipelines while they run."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._total = Counter(
            "openanomaly_config_reload_total",
            "Changes of pipeline definitions, by whether they were taken over.",
            ["result"],
            registry=registry,
        )
        for result in ("taken", "refused"):
            self._total.labels(result)
        self.successful = Gauge(
            "openanomaly_config_reload_successful",
            "1 where the newest pipeline definitions are in force.",
            registry=registry,
        )
        self.successful.set(1)
        self._success_time = Gauge(
            "openanomaly_config_reload_success_time_seconds",
            "When the pipelines in force were taken over.",
            registry=registry,
        )
        self._pipelines = Gauge("openanomaly_config_pipelines", "Pipelines in force.", registry=registry)

    def took(self) -> None:
        self._total.labels("taken").inc()

    def refused(self) -> None:
        self._total.labels("refused").inc()

    def in_force(self, pipelines: int, at_s: float) -> None:
        self._pipelines.set(pipelines)
        self._success_time.set(at_s)


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
            buckets=_SECONDS,
            registry=registry,
        )
        self.previews = Counter(
            "openanomaly_api_previews_total", "Previews by their end.", ["outcome"], registry=registry
        )
        for outcome in ("done", "failed", "left", "refused"):
            self.previews.labels(outcome)


class Telemetry:
    """The metrics of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.receiver = ReceiverMetrics(self.registry)
        self.window = WindowMetrics(self.registry)
        self.inference = InferenceMetrics(self.registry)
        self.sink = SinkMetrics(self.registry)
        self.status = StatusMetrics(self.registry)
        self.lag = LagMetrics(self.registry)
        self.reload = ReloadMetrics(self.registry)
        self.backfill = BackfillMetrics(self.registry)
        self.api = ApiMetrics(self.registry)
        self.pull = PullMetrics(self.registry)
        self.is_ready = Gauge(
            "openanomaly_ready", "1 while the process is ready, by role.", ["role"], registry=self.registry
        )
        self.started = Gauge(
            "openanomaly_start_time_seconds", "When the process started.", registry=self.registry
        )
        self.started.set(time.time())
