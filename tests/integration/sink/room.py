"""The sink role on a bench, and what it counts."""

from prometheus_client import CollectorRegistry

from integration.rooms import Bench
from openanomaly.agents.sink import SinkWorker, create_sink
from openanomaly.broker.dead_letter import DeadLetters
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.settings import SinkSettings
from openanomaly.telemetry import SinkMetrics


class Room:
    def __init__(self, bench: Bench, **settings: object) -> None:
        self.app = bench.app("sink")
        self.registry = CollectorRegistry()
        quick = {"batch_wait_s": 0.0, "backoff_min_s": 0.001, "backoff_max_s": 0.01}
        self.worker: SinkWorker = create_sink(
            self.app,
            SinkSettings(**{**quick, **settings}),  # type: ignore[arg-type]
            bench.topics,
            SinkMetrics(self.registry),
            DeadLetters(self.app, bench.topics),
            [Pipeline(name="default", labels={"team": "infra"})],
        )

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"openanomaly_sink_{name}", labels) or 0.0

    @property
    def dropped(self) -> float:
        """Scores that were dropped, for any reason."""
        return sum(
            sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == "openanomaly_sink_scores_dropped_total"
        )
