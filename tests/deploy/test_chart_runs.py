"""What the chart says is what runs: its containers as processes, against real servers, score a spike.

The spike is that of `helm test`, pushed by the pod of the chart. Where it must arrive is VictoriaMetrics.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from deploy.chart import of_kind, render
from deploy.kubelet import Kubelet
from deploy.page import see_page
from parts import secured_kafka
from parts.kafka import Cluster
from parts.part import wait_until
from parts.victoria import VictoriaMetrics

TARGET = "victoria-metrics:8428"


@contextlib.contextmanager
def running(kubelet: Kubelet, *roles: str, also: Mapping[str, str] | None = None) -> Iterator[Kubelet]:
    """These roles, and further pods by name, from ready to their end."""
    try:
        for role in roles:
            kubelet.start(role)
        for name, role in (also or {}).items():
            kubelet.start(role, name)
        kubelet.wait()
        yield kubelet
    finally:
        statuses = kubelet.stop()
    assert set(statuses.values()) == {0}, statuses


def spikes(store: VictoriaMetrics) -> list[float]:
    """The highest score of each probe's series."""
    found = store.export('anomaly_score{for="openanomaly_probe",pipeline="default"}')
    return [max(samples.values()) for samples in found.values()]


def host(store: VictoriaMetrics) -> str:
    return store.url.removeprefix("http://")


def test_roles_on_kafka(
    tmp_path: Path, kafka: Cluster, topic_prefix: str, victoria_metrics: VictoriaMetrics
) -> None:
    objects = render(
        "kafka",
        # One node has no replicas, and other tests use it too.
        *("--set", f"config.broker.replication=1,config.broker.topic_prefix={topic_prefix}"),
        *("--set", "keda.serverAddress=http://prometheus:9090"),
        *("--set", "window.autoscaling.enabled=true,inference.autoscaling.enabled=true"),
    )
    hosts = {"kafka:9092": kafka.bootstrap, TARGET: host(victoria_metrics)}
    kubelet = Kubelet(objects, tmp_path, hosts)
    with running(kubelet, "receiver", "window", "inference", "sink", also={"window-1": "window"}):
        assert "the spike scores" in kubelet.run_test()
        # The page reads scores beside the sink, which writes them in requests of many.
        wait_until(lambda: max(spikes(victoria_metrics), default=0) > 1, "the spike in the database")
        for role in ("window", "inference"):
            # What KEDA asks for is there, under the labels that it asks with.
            scaled = of_kind(objects, "ScaledObject")[role]["spec"]["triggers"][0]
            name, matcher = re.findall(r'max\((\w+)\{(role="\w+")', scaled["metadata"]["query"])[0]
            assert re.search(rf"^{name}\{{{matcher},", kubelet.metrics(role), re.MULTILINE)


def test_kafka_with_a_password_over_tls(tmp_path: Path, victoria_metrics: VictoriaMetrics) -> None:
    with secured_kafka.secured_kafka(tmp_path) as kafka:
        objects = render(
            "kafka-sasl-tls",
            *("--set", f"config.broker.replication=1,config.broker.sasl_username={secured_kafka.USER}"),
            *("--set", f"config.sink.url=http://{TARGET}/api/v1/write"),
        )
        brokers = "kafka-1:9093,kafka-2:9093,kafka-3:9093"
        secrets = {
            "openanomaly-credentials": {
                "OPENANOMALY_BROKER_SASL_PASSWORD": secured_kafka.PASSWORD,
                "OPENANOMALY_SINK_PASSWORD": "word",
            },
            "kafka-ca": {"ca.crt": Path(kafka.ca).read_text()},
        }
        hosts = {brokers: kafka.password_url.removeprefix("kafka://"), TARGET: host(victoria_metrics)}
        kubelet = Kubelet(objects, tmp_path / "pods", hosts, secrets)
        with running(kubelet, "receiver", "sink"):
            assert kafka.plain.admin().list_topics(timeout=10).topics.keys() >= {"openanomaly.scores"}


def test_standalone(tmp_path: Path, victoria_metrics: VictoriaMetrics) -> None:
    objects = render("standalone")
    kubelet = Kubelet(objects, tmp_path, {TARGET: host(victoria_metrics)})
    with running(kubelet, "standalone"):
        assert "the spike scores" in kubelet.run_test()
        wait_until(lambda: max(spikes(victoria_metrics), default=0) > 1, "the spike in the database")
    with running(Kubelet(objects, tmp_path, {TARGET: host(victoria_metrics)}), "standalone") as after:
        # The second pod has the volume of the first, and knows its series.
        assert re.search(r"^openanomaly_window_series 1", after.metrics("standalone"), re.MULTILINE)


def test_pull_mode(tmp_path: Path, victoria_metrics: VictoriaMetrics) -> None:
    hosts = {"prometheus:9090": host(victoria_metrics), TARGET: host(victoria_metrics)}
    soon = "config.pipelines[0].step_s=1,config.pipelines[0].lateness_s=0"
    kubelet = Kubelet(render("pull", "--set", soon), tmp_path, hosts)
    with running(kubelet, "pull"):
        asked = re.compile(r'^openanomaly_pull_runs_total{outcome="ok",pipeline="cpu"} [1-9]', re.MULTILINE)
        wait_until(lambda: asked.search(kubelet.metrics("pull")), "an answer of the database")
        # What OpenAnomalyPullAway looks for.
        assert re.search(r'^openanomaly_ready\{role="pull"\} 1', kubelet.metrics("pull"), re.MULTILINE)
    assert (tmp_path / "pull" / "data" / "pull").is_dir()


def test_playground(tmp_path: Path, victoria_metrics: VictoriaMetrics) -> None:
    secrets = {
        "openanomaly-credentials": {
            "OPENANOMALY_PLAYGROUND_AUTH_USERNAME": "people",
            "OPENANOMALY_PLAYGROUND_AUTH_PASSWORD": "word",
            "OPENANOMALY_PULL_PASSWORD": "other",
        }
    }
    kubelet = Kubelet(render("playground"), tmp_path, {"prometheus:9090": host(victoria_metrics)}, secrets)
    with running(kubelet, "playground"):
        see_page(kubelet.address("playground"), "people", "word")
        assert re.search(r"^openanomaly_playground_sessions ", kubelet.metrics("playground"), re.MULTILINE)
