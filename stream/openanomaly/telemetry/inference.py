"""What inference counts."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from openanomaly.telemetry.scales import PASSED_OVER, ROWS, SECONDS


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
            f"Due frames passed over: {PASSED_OVER}.",
            registry=registry,
        )
        self.batch_rows = Histogram(
            "openanomaly_inference_batch_rows",
            "Rows of a batch.",
            ["model"],
            buckets=ROWS,
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "openanomaly_inference_batch_seconds",
            "Time of the engine for a batch.",
            ["model"],
            buckets=SECONDS,
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
            buckets=SECONDS,
            registry=registry,
        )
        self.waiting = Gauge(
            "openanomaly_inference_waiting_rows", "Contexts that wait or are in work.", registry=registry
        )
        self._engines = Gauge(
            "openanomaly_inference_engine_info",
            "1 for each model that is loaded, and where it computes.",
            ["model", "device"],
            registry=registry,
        )

    def engines(self, device: Mapping[str, str]) -> None:
        """Models that are loaded from now on, and the device of each."""
        self._engines.clear()
        for model, where in device.items():
            self._engines.labels(model, where).set(1)

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
