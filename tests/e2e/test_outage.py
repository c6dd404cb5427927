"""Inference goes away for longer than a horizon: scores go on, say so, and recover alone."""

import contextlib
import json
from pathlib import Path

import pytest

from e2e.pushed import Fleet
from e2e.sender import push, request
from parts.kafka import Cluster
from parts.part import get
from parts.product import Product, openanomaly
from parts.victoria import VictoriaMetrics

HOSTS = 6
HORIZON, EVERY = 24, 8
WARMUP = 48
GONE, BACK = 100, 152
STEPS = 200
PACE = 4
CONFIG = {
    "pipelines": [
        {
            "name": "pushed",
            "selector": "test_load",
            "step_s": 1,
            "lateness_s": 1,
            "context": 64,
            "min_context": 32,
            "horizon": HORIZON,
            "forecast_every": EVERY,
            "score": {"warmup": WARMUP, "block": 48},
        }
    ],
    "sink": {"emit": "all", "series": ["anomaly_score", "yhat"]},
}


class Room:
    """Roles as processes, a fleet that is pushed into them, and what they wrote."""

    def __init__(self, roles: dict[str, Product], store: VictoriaMetrics) -> None:
        self.roles, self.store = roles, store
        self.fleet = Fleet(HOSTS, STEPS)

    def push(self, first: int, last: int) -> None:
        """Steps [first, last), a few at a time, each after the scores of those before are written."""
        for step in range(first, last, PACE):
            push(self.roles["receiver"].write_url, request(self.fleet.samples(step, step + PACE)))
            if step > WARMUP:
                self.wait_for("anomaly_score", step + PACE - 2)

    def steps(self, name: str) -> dict[str, list[int]]:
        """By host: the steps that have a sample of the series `name`, ascending."""
        found = self.store.export(f'{name}{{for="test_load"}}')
        return {
            dict(labels)["host"]: sorted((ms - self.fleet.start_ms) // 1000 - 1 for ms in samples)
            for labels, samples in found.items()
        }

    def wait_for(self, name: str, step: int) -> None:
        def is_there() -> bool:
            found = self.steps(name)
            return len(found) == HOSTS and all(steps[-1] >= step for steps in found.values())

        self.roles["sink"].wait_until(is_there, f"{name} of step {step}")

    def unforecast(self) -> float:
        return self.roles["window"].total("openanomaly_window_scores_without_forecast_total")

    def share_without(self) -> float:
        page = json.loads(get(f"{self.roles['sink'].url}/api/v1/anomalies"))
        return float(page["forecasts"]["share_without"])


@pytest.mark.timeout(300)
def test_scores_outlive_their_forecasts_and_find_new_ones(
    tmp_path: Path, victoria_metrics: VictoriaMetrics, kafka: Cluster, topic_prefix: str
) -> None:
    broker = {"partitions": 2, "topic_prefix": topic_prefix, "session_timeout_s": 6}
    flags = ("--broker", kafka.url, "--write-to", victoria_metrics.write_url)

    def start(stack: contextlib.ExitStack, role: str) -> Product:
        product = openanomaly(tmp_path, *flags, command=role, config={**CONFIG, "broker": broker})
        return stack.enter_context(product)

    with contextlib.ExitStack() as stack:
        room = Room({r: start(stack, r) for r in ("receiver", "window", "sink")}, victoria_metrics)
        inference = start(stack, "inference")
        room.push(0, GONE)
        room.wait_for("yhat", GONE - 2)
        before = room.unforecast()

        inference.kill()
        room.push(GONE, BACK)
        room.wait_for("anomaly_score", BACK - 2)
        expected = room.steps("yhat")
        for host, steps in expected.items():
            last = steps[-1]
            # The last forecast was made from one of the `EVERY` steps before, and reaches its horizon.
            assert GONE - 1 - EVERY + HORIZON - 1 <= last <= GONE + HORIZON, host
        assert room.unforecast() - before >= HOSTS * (BACK - GONE - HORIZON - 2)
        room.roles["sink"].wait_until(lambda: room.share_without() == 1.0, "the page to say so")

        inference.start()
        room.push(BACK, STEPS)
        room.wait_for("yhat", STEPS - 2)
        room.roles["sink"].wait_until(lambda: room.share_without() == 0.0, "the page to say so")
        found = room.steps("anomaly_score")

    assert len(found) == HOSTS
    for host, steps in found.items():
        assert steps[-1] >= STEPS - 2, host
        assert steps == list(range(steps[0], steps[-1] + 1)), f"{host}: a step has no score"
        assert steps[0] <= WARMUP + 1, host
