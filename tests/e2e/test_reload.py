"""Pipelines change under load, without a restart: no step of any is lost, none is judged twice."""

import contextlib
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from e2e.pushed import Fleet
from e2e.test_pushed import WARMUP, Pushing
from parts.kafka import Cluster
from parts.part import get
from parts.product import Product, openanomaly
from parts.victoria import VictoriaMetrics

SCORE = {"warmup": WARMUP, "block": 48}
BASE = {"selector": "test_load", "step_s": 1, "lateness_s": 1, "min_context": 32, "score": SCORE}
PUSHED = {**BASE, "name": "pushed"}
CHANGED = {**BASE, "name": "changed"}
GONE = {**BASE, "name": "gone"}
BESIDE = {**BASE, "name": "beside", "selector": 'test_load{host=~"host-[0-4]"}', "model": "statistical"}
SLOWER = {**BASE, "name": "slower", "step_s": 2, "score": {"warmup": 4, "block": 12}}

Points = dict[str, dict[str, list[int]]]
"""By pipeline and host: the timestamps of scores."""


def settings(broker: Mapping[str, Any], *pipelines: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "broker": dict(broker),
        "sink": {"emit": "all"},
        "store": {"poll_s": 0.2},
        "pipelines": [*pipelines],
    }


class Installation:
    """The product, whatever it is made of, and its settings file."""

    def __init__(self, root: Path, products: Sequence[Product], commands: Sequence[str], broker: Any) -> None:
        self.products = dict(zip(commands, products, strict=True))
        self._files = [root / f"openanomaly-{command}.yaml" for command in commands]
        self._broker = broker
        self._changes = 0

    @property
    def receiver(self) -> Product:
        return self.products.get("run") or self.products["receiver"]

    def room(self, name: str) -> Product:
        return self.products.get("run") or self.products[name]

    def write(self, text: str) -> None:
        for file in self._files:  # as editors and Kubernetes do it
            file.with_suffix(".new").write_text(text)
            os.replace(file.with_suffix(".new"), file)

    def change(self, *pipelines: Mapping[str, Any]) -> None:
        """Returns once every process runs these."""
        self.write(json.dumps(settings(self._broker, *pipelines)))
        names = {pipeline["name"] for pipeline in pipelines}
        for product in self.products.values():
            product.wait_until(
                lambda product=product: (
                    reloads(product, "taken") > self._changes and running(product) == names
                ),
                "reload",
            )
        self._changes += 1
        for product in self.products.values():
            assert reloads(product, "taken") == self._changes


def running(product: Product) -> set[str]:
    return {p["name"] for p in json.loads(get(f"{product.url}/api/v1/admin/pipelines"))}


def reloads(product: Product, result: str) -> float:
    return product.metrics()[f'openanomaly_config_reload_total{{result="{result}"}}']


@contextlib.contextmanager
def alone(root: Path, store: VictoriaMetrics, *pipelines: Mapping[str, Any]) -> Iterator[Installation]:
    flags = ("--broker", f"embedded://{root / 'broker'}", "--write-to", store.write_url)
    broker = {"partitions": 4}
    with openanomaly(root, *flags, config=settings(broker, *pipelines)) as product:
        yield Installation(root, [product], ["run"], broker)


@contextlib.contextmanager
def roles(
    root: Path, store: VictoriaMetrics, kafka: Cluster, prefix: str, *pipelines: Mapping[str, Any]
) -> Iterator[Installation]:
    flags = ("--broker", kafka.url, "--write-to", store.write_url)
    broker = {"partitions": 4, "topic_prefix": prefix, "session_timeout_s": 6}
    commands = ("receiver", "window", "inference", "sink")
    with contextlib.ExitStack() as stack:
        given = settings(broker, *pipelines)
        products = [
            stack.enter_context(openanomaly(root, *flags, command=command, config=given))
            for command in commands
        ]
        yield Installation(root, products, commands, broker)


def points(store: VictoriaMetrics) -> Points:
    out: Points = defaultdict(lambda: defaultdict(list))
    for labels, samples in store.export('anomaly_score{for="test_load"}').items():
        named = dict(labels)
        out[named["pipeline"]][named["host"]] += samples
    return {name: {host: sorted(at) for host, at in hosts.items()} for name, hosts in out.items()}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("broker", ["embedded", "kafka"])
def test_pipelines_change_under_load_and_no_step_is_lost_or_judged_twice(
    tmp_path: Path, victoria_metrics: VictoriaMetrics, topic_prefix: str, broker: str,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    fleet = Fleet(hosts=20, steps=900)
    begin = (PUSHED, CHANGED, GONE)
    if broker == "embedded":
        started = alone(tmp_path, victoria_metrics, *begin)
    else:
        kafka = request.getfixturevalue("kafka")
        started = roles(tmp_path, victoria_metrics, kafka, topic_prefix, *begin)
    with started as installation:
        pids = {name: product.worker_pids() for name, product in installation.products.items()}
        receiver, window = installation.receiver, installation.room("window")
        pushing = Pushing(receiver, fleet)
        pushing.start()
        pushing.wait_until_taken(200)
        installation.change(PUSHED, CHANGED, GONE, BESIDE, SLOWER)
        added_at = pushing.taken
        pushing.wait_until_taken(added_at + 100)
        tolerant = {**CHANGED, "score": {**SCORE, "tolerance": 0.4}, "labels": {"team": "b"}}
        installation.change(PUSHED, tolerant, BESIDE, SLOWER)
        pushing.wait_until_taken(pushing.taken + 50)
        removed_at = pushing.taken
        installation.write(json.dumps(settings({}, {**PUSHED, "scroe": {}})))
        for product in installation.products.values():
            product.wait_until(lambda product=product: reloads(product, "refused") == 1, "a refusal")
            assert running(product) == {"pushed", "changed", "beside", "slower"}
            assert "no setting pipelines.0.scroe; did you mean score?" in product.process.tail()
        pushing.finish()
        last_ms = fleet.scored_ms(fleet.steps - 1)

        def is_complete() -> bool:
            found = points(victoria_metrics)
            return all(
                len(found.get(name, ())) == hosts
                and all(at[-1] >= last_ms - 1000 for at in found[name].values())
                for name, hosts in {"pushed": 20, "changed": 20, "beside": 5, "slower": 20}.items()
            )

        receiver.wait_until(is_complete, "the scores of the last step")
        window.wait_until(lambda: window.total("openanomaly_lag_records") == 0, "nothing unread")
        found = points(victoria_metrics)

        def sums() -> tuple[float, float, float]:
            names = ("window_scores_emitted_total", "groups_scores_emitted_total")
            judged, shares = (window.total(f"openanomaly_{name}") for name in names)
            return installation.room("sink").total("openanomaly_sink_scores_written_total"), judged, shares

        # Shares of groups come behind the scores of their series.
        installation.room("sink").wait_until(lambda: sums()[0] == sums()[1] + sums()[2], "shares are written")
        written, judged, shares = sums()
        assert pids == {name: product.worker_pids() for name, product in installation.products.items()}

    every = [fleet.scored_ms(step) for step in range(WARMUP, fleet.steps)]
    assert all(at == every for at in found["pushed"].values())
    # Labels of the output change in the middle, the scores go on.
    assert all(at == every for at in found["changed"].values())
    assert len(victoria_metrics.export('anomaly_score{for="test_load",pipeline="changed"}')) == 40
    for name, step_ms in {"beside": 1000, "slower": 2000, "gone": 1000}.items():
        for at in found[name].values():
            assert at == list(range(at[0], at[-1] + 1, step_ms)), name
    assert max(at[-1] for at in found["gone"].values()) < fleet.scored_ms(removed_at)
    for host, at in found["beside"].items():
        assert at[0] <= fleet.scored_ms(added_at + WARMUP), host  # steps are counted from the change on
    # What was sent twice would have been written more often than it is there.
    assert shares > 0
    assert written - shares == judged == sum(len(at) for hosts in found.values() for at in hosts.values())
