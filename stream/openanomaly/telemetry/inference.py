"""What inference counts."""

import logging
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from openanomaly.core.ports.model_engine import DeviceMemory, ModelEngine, TellsMemory
from openanomaly.telemetry.scales import PASSED_OVER, ROWS, SECONDS

log = logging.getLogger(__name__)


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
        self._memory = _MemoryCollector()
        registry.register(self._memory)

    def engines(self, engines: Mapping[str, ModelEngine]) -> None:
        """The engines of the models that are loaded from now on."""
        self._engines.clear()
        for model, engine in engines.items():
            self._engines.labels(model, engine.device).set(1)
        self._memory.engines = list(engines.values())

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


_MEMORY = {
    "bytes": ("total", "Memory of a device that has its own, such as a GPU."),
    "free_bytes": ("free", "Memory of the device that no process has taken."),
    "reserved_bytes": ("reserved", "Memory of the device that this process holds, for the next batch too."),
    "allocated_bytes": ("allocated", "What of that was in use at the moment of the scrape."),
}


class _MemoryCollector(Collector):
    """Memory of devices at each scrape. Without a GPU there is none: a zero would say that it is full."""

    def __init__(self) -> None:
        self.engines: Iterable[ModelEngine] = ()

    def collect(self) -> Iterable[Metric]:
        found: dict[str, DeviceMemory] = {}
        for engine in self.engines:
            if isinstance(engine, TellsMemory) and engine.device not in found:
                memory = _memory(engine)
                if memory is not None:
                    found[engine.device] = memory
        for name, (attribute, text) in _MEMORY.items():
            full = f"openanomaly_inference_device_memory_{name}"
            family = GaugeMetricFamily(full, text, labels=["device"])
            for device, memory in found.items():
                family.add_metric([device], getattr(memory, attribute))
            yield family


def _memory(engine: TellsMemory) -> DeviceMemory | None:
    try:
        return engine.device_memory()
    except Exception as exc:
        # Of a GPU that has failed torch raises anything, and then the other metrics are needed most.
        log.debug("memory of %s cannot be told: %s", engine.device, exc)
        return None
