"""Presets fit what exporters really export: a running node_exporter, well-known series of Kubernetes."""

import fnmatch
import itertools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from openanomaly import presets
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.pipelines.selector import Selector
from openanomaly.core.series import Labels
from parts import exporters
from parts.part import get

KUBERNETES = Path(__file__).parent / "kubernetes.txt"
Exported = dict[Labels, str]
"""Labels of each series -> type of its metric."""
NO_COUNTERS = ["node_netstat_Tcp_CurrEstab"]
"""Of node_exporter's untyped metrics, which are what the kernel counts otherwise."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    """What is exported, by preset."""
    with exporters.node_exporter(tmp_path_factory.mktemp("node")) as address:
        host = get(f"http://{address}/metrics").decode()
    return {"node-exporter": series(host), "kubernetes": series(KUBERNETES.read_text())}


def series(text: str) -> Exported:
    return {
        tuple(sorted({"__name__": sample.name, **sample.labels}.items())): metric.type
        for metric in text_string_to_metric_families(text)
        for sample in metric.samples
    }


def selected(pipeline: Pipeline, found: Exported) -> set[Labels]:
    selector = Selector.parse(pipeline.selector)
    return {labels for labels in found if selector.matches(labels)}


EVERY = [(name, pipeline) for name in presets.names() for pipeline in presets.pipelines(name)]
each = pytest.mark.parametrize(("name", "pipeline"), EVERY, ids=[pipeline.name for _, pipeline in EVERY])


def test_each_preset_is_tried(exported: dict[str, Exported]) -> None:
    assert set(exported) == set(presets.names())
    assert len(exported["node-exporter"]) > 200


@each
def test_each_pipeline_selects_series_that_are_exported(
    name: str, pipeline: Pipeline, exported: dict[str, Exported]
) -> None:
    assert selected(pipeline, exported[name])


def test_no_series_is_in_two_pipelines(exported: dict[str, Exported]) -> None:
    everything = exported["node-exporter"] | exported["kubernetes"]
    pipelines = defaultdict(set)
    for _, pipeline in EVERY:
        for labels in selected(pipeline, everything):
            pipelines[labels].add(pipeline.name)
    assert {labels: names for labels, names in pipelines.items() if len(names) > 1} == {}


def test_presets_can_be_chosen_together() -> None:
    assert len(presets.beside((), presets.names())) == len(EVERY)


@each
def test_counters_become_rates_and_nothing_else_does(
    name: str, pipeline: Pipeline, exported: dict[str, Exported]
) -> None:
    for labels in selected(pipeline, exported[name]):
        metric, kind = dict(labels)["__name__"], exported[name][labels]
        becomes_rate = pipeline.transform == "rate" or (
            pipeline.transform == "auto" and metric.endswith("_total")
        )
        is_counter = kind == "counter" or (kind in ("unknown", "untyped") and metric not in NO_COUNTERS)
        assert becomes_rate == is_counter, (metric, kind)


def test_sums_and_pauses_of_cadvisor_are_left_out(exported: dict[str, Exported]) -> None:
    containers = {
        dict(labels)["container"]
        for _, pipeline in EVERY
        for labels in selected(pipeline, exported["kubernetes"])
        if dict(labels)["__name__"].startswith(("container_cpu", "container_memory"))
    }
    assert containers == {"app"}


def test_virtual_interfaces_and_file_systems_are_left_out() -> None:
    pipelines = {pipeline.name: Selector.parse(pipeline.selector) for _, pipeline in EVERY}

    def device(name: str, value: str) -> Labels:
        return (("__name__", name), ("device", value))

    traffic = "node_network_receive_bytes_total"
    for virtual in ("lo", "veth1a2b", "docker0", "br-7f", "cali12", "cni0"):
        assert not pipelines["node-network-traffic"].matches(device(traffic, virtual))
    for real in ("eth0", "ens5", "enp3s0", "bond0", "wlan0", "lo1"):
        assert pipelines["node-network-traffic"].matches(device(traffic, real))
    for real in ("sda", "nvme0n1", "vda", "dm-0", "md0"):
        assert pipelines["node-disk-busy"].matches(device("node_disk_io_time_seconds_total", real))
    for kind, is_watched in (
        ("ext4", True),
        ("xfs", True),
        ("nfs4", True),
        ("tmpfs", False),
        ("fuse.s", False),
    ):
        labels = (("__name__", "node_filesystem_avail_bytes"), ("fstype", kind))
        assert pipelines["node-filesystem"].matches(labels) is is_watched, kind


def comments(text: str) -> Iterator[tuple[str, str]]:
    """Each line that begins a pipeline, and the line before it."""
    for before, line in itertools.pairwise(text.splitlines()):
        if fnmatch.fnmatch(line, "  - name: *"):
            yield line, before


@pytest.mark.parametrize("name", presets.names())
def test_each_pipeline_says_why(name: str) -> None:
    found = list(comments(presets.text(name)))
    assert len(found) == len(presets.pipelines(name))
    assert all(before.startswith("  # ") for _, before in found)
