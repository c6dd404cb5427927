"""Scores of series whose every value is known: a spike is told, and a crash loses no step."""

import contextlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from e2e.pushed import RANGE, Fleet, Scores, scores
from e2e.sender import push, request
from openanomaly.adapters.engines import built_in_checkpoint
from parts.kafka import Cluster
from parts.part import get, wait_until
from parts.product import Product, kill_if_there, openanomaly
from parts.victoria import VictoriaMetrics

WARMUP = 48
PIPELINE = {
    "name": "pushed",
    "selector": "test_load",
    "step_s": 1,
    "lateness_s": 1,
    "min_context": 32,
    "score": {"warmup": WARMUP, "block": 48},
}


@pytest.fixture(params=["embedded", "kafka"])
def broker(
    request: pytest.FixtureRequest, tmp_path: Path, topic_prefix: str
) -> tuple[str, Mapping[str, Any]]:
    """Address and settings of each broker."""
    if request.param == "embedded":
        return f"embedded://{tmp_path / 'broker'}", {"partitions": 4}
    cluster: Cluster = request.getfixturevalue("kafka")
    return cluster.url, {"partitions": 4, "topic_prefix": topic_prefix, "session_timeout_s": 6}


def config(broker: Mapping[str, Any], model: str = "auto") -> dict[str, Any]:
    return {"broker": dict(broker), "sink": {"emit": "all"}, "pipelines": [{**PIPELINE, "model": model}]}


class Pushing(threading.Thread):
    """Pushes a fleet's steps in order while a test does something else."""

    def __init__(self, product: Product, fleet: Fleet, per_request: int = 4) -> None:
        super().__init__(daemon=True)
        self._url, self._fleet, self._per_request = product.write_url, fleet, per_request
        self.taken = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while self.taken < self._fleet.steps:
                last = min(self.taken + self._per_request, self._fleet.steps)
                push(self._url, request(self._fleet.samples(self.taken, last)))
                self.taken = last
        except BaseException as exc:
            self.error = exc

    def finish(self) -> None:
        self.join(120)
        if self.error:
            raise self.error
        assert self.taken == self._fleet.steps

    def wait_until_taken(self, steps: int) -> None:
        wait_until(lambda: self.taken >= steps or self.error, f"{steps} steps taken", 120, every_s=0.001)


def wait_for_last_step(product: Product, store: VictoriaMetrics, fleet: Fleet) -> Scores:
    last_ms = fleet.scored_ms(fleet.steps - 1)

    def is_complete() -> bool:
        found = scores(store)
        return len(found) == len(fleet.names) and all(last_ms in samples for samples in found.values())

    product.wait_until(is_complete, "the scores of the last step")
    return scores(store)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("model", ["auto", str(built_in_checkpoint())], ids=["onnx", "torch"])
def test_a_spike_of_one_normal_range_scores_above_one_and_its_neighbours_do_not(
    tmp_path: Path, victoria_metrics: VictoriaMetrics, broker: tuple[str, Mapping[str, Any]], model: str
) -> None:
    fleet = Fleet(hosts=8, steps=970)
    spike = 960
    fleet.values[3, spike] = 50 + RANGE
    url, settings = broker
    flags = ("--broker", url, "--write-to", victoria_metrics.write_url)
    with openanomaly(tmp_path, *flags, config=config(settings, model)) as product:
        pushing = Pushing(product, fleet)
        pushing.start()
        pushing.finish()
        found = wait_for_last_step(product, victoria_metrics, fleet)
        forecasts = product.total("openanomaly_inference_forecasts_total")
        dropped = product.total("openanomaly_inference_dropped_total")
        engine = json.loads(get(f"{product.url}/api/v1/admin/status"))["inference"]["models"][model]
        said = product.process.log.read_text()

    assert forecasts > 0
    assert forecasts + dropped >= 8 * ((970 - 32) // 16), "stale ones may be dropped"
    assert engine == ("chronos-bolt-nano" if model == "auto" else model)
    assert f"model {model}: {engine} on cpu" in said
    spiked = found.pop("host-3")
    assert max(spiked[fleet.scored_ms(step)] for step in (spike, spike + 1)) > 1.0
    before = [spiked[fleet.scored_ms(step)] for step in range(spike - 20, spike)]
    assert max(before) < 1.0
    neighbours = [samples[fleet.scored_ms(step)] for samples in found.values() for step in (spike, spike + 1)]
    assert len(neighbours) == 7 * 2
    assert max(neighbours) < 1.0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("victim", ["all", "worker"])
def test_kill_9_while_samples_flow_loses_no_step(
    tmp_path: Path, victoria_metrics: VictoriaMetrics, broker: tuple[str, Mapping[str, Any]], victim: str
) -> None:
    fleet = Fleet(hosts=40, steps=300)
    url, settings = broker
    flags = ("--broker", url, "--write-to", victoria_metrics.write_url)
    with openanomaly(tmp_path, *flags, config=config(settings)) as product:
        pushing = Pushing(product, fleet)
        pushing.start()
        for steps in (100, 200):
            pushing.wait_until_taken(steps)
            if victim == "all":
                product.kill()
                product.start()
            else:
                workers = product.worker_pids()[:-1]
                assert workers, "run has a worker of its own"
                for pid in workers:  # `run` starts it again; the sender is not answered meanwhile
                    kill_if_there(pid)
        pushing.finish()
        found = wait_for_last_step(product, victoria_metrics, fleet)

    for name, samples in found.items():
        first = (min(samples) - fleet.start_ms) // 1000 - 1
        assert first <= WARMUP + 1, name
        assert sorted(samples) == [fleet.scored_ms(step) for step in range(first, fleet.steps)], name


@pytest.mark.timeout(240)
def test_roles_as_processes_of_their_own_do_the_same(
    tmp_path: Path, victoria_metrics: VictoriaMetrics, kafka: Cluster, topic_prefix: str
) -> None:
    fleet = Fleet(hosts=12, steps=120)
    settings = {"partitions": 4, "topic_prefix": topic_prefix, "session_timeout_s": 6}
    flags = ("--broker", kafka.url, "--write-to", victoria_metrics.write_url)
    with contextlib.ExitStack() as stack:
        roles = {
            role: stack.enter_context(openanomaly(tmp_path, *flags, command=role, config=config(settings)))
            for role in ("receiver", "window", "inference", "sink")
        }
        pushing = Pushing(roles["receiver"], fleet)
        pushing.start()
        pushing.finish()
        found = wait_for_last_step(roles["sink"], victoria_metrics, fleet)

        def answered() -> bool:
            # A machine that is slow has fresher contexts before older ones had their turn.
            kept = ("forecasts_total", 'dropped_total{reason="stale"}')
            done = sum(roles["inference"].metrics()[f"openanomaly_inference_{name}"] for name in kept)
            return done == roles["window"].metrics()["openanomaly_window_contexts_total"] > 0

        roles["inference"].wait_until(answered, "every context is forecast, or stale")
        made = {role: product.metrics() for role, product in roles.items()}

    for name, samples in found.items():
        assert sorted(samples) == [fleet.scored_ms(step) for step in range(WARMUP, fleet.steps)], name
    assert made["receiver"]["openanomaly_receiver_samples_published_total"] == 12 * 120
    assert made["window"]["openanomaly_window_samples_accepted_total"] == 12 * 120
    assert made["inference"]["openanomaly_inference_forecasts_total"] > 0
    assert made["sink"]["openanomaly_sink_scores_written_total"] == 12 * (120 - WARMUP)
