"""What the playground counts."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class PlaygroundMetrics:
    """What people tried."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.trials = Counter(
            "openanomaly_playground_trials_total", "Trials by their end.", ["outcome"], registry=registry
        )
        for outcome in ("done", "failed", "left"):
            self.trials.labels(outcome)
        self.sessions = Gauge("openanomaly_playground_sessions", "Pages that are open.", registry=registry)
