"""What changes of pipelines count."""

from prometheus_client import CollectorRegistry, Counter, Gauge


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
