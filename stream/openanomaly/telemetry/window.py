"""What window workers count."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from openanomaly.core.windows.coverage import BANDS
from openanomaly.telemetry.scales import PASSED_OVER, SAMPLES, SECONDS


class WindowMetrics:
    """What window workers did; the lanes count in plain objects, read when somebody asks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.rejected = Counter(
            "openanomaly_window_rejected_total",
            f"Frames of samples and forecasts passed over: {PASSED_OVER}.",
            ["topic"],
            registry=registry,
        )
        for topic in ("samples", "forecasts"):
            self.rejected.labels(topic)
        self.frame_samples = Histogram(
            "openanomaly_window_frame_samples",
            "Samples of a frame from the receiver.",
            buckets=SAMPLES,
            registry=registry,
        )
        self.queue_wait_seconds = Histogram(
            "openanomaly_window_queue_wait_seconds",
            "From the writing of a frame of samples until its samples go into windows.",
            buckets=SECONDS,
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
    "told": ("forecast_steps", "Steps that had a forecast, once per forecaster."),
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
        inside = CounterMetricFamily(
            "openanomaly_window_forecast_steps_inside",
            "Those whose value was inside the band of their forecast that should hold such a share of them.",
            labels=["band"],
        )
        for share in BANDS:
            inside.add_metric([share], counts.get(f"inside {share}", 0))
        yield inside
        for name, value in self._gauges().items():
            full = f"openanomaly_window_{name}"
            if name in _SUMS:
                yield CounterMetricFamily(full, _SUMS[name], value=value)
            else:
                yield GaugeMetricFamily(full, _GAUGES.get(name, name), value=value)
