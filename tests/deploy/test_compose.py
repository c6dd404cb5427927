"""docker-compose.yml does what it says: its own commands, settings and files score a spike.

The processes are those of the file (parts/compose.py), so the file cannot drift from what runs.
"""

import json
import re
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
import yaml

from openanomaly.settings.sources import load
from parts import compose
from parts.compose import Running
from parts.part import get

ROOT = compose.ROOT
PROFILES = {
    "default": [],
    "standalone": ["--profile", "standalone"],
    "pull": ["--profile", "kafka", "--profile", "pull"],
    "gpu": ["--env-file", str(ROOT / "deploy/compose/gpu.env")],
    "mongo": ["--env-file", str(ROOT / "deploy/compose/mongo.env")],
    "tsdb": ["--profile", "tsdb"],
}
AROUND = {"victoriametrics", "vmalert", "grafana", "node-exporter"}
ROLES = AROUND | {"kafka", "receiver", "window", "sink", "prometheus", "fleet"}
SERVICES = {
    "default": ROLES | {"inference"},
    "standalone": AROUND | {"openanomaly", "prometheus-standalone", "fleet-standalone"},
    "pull": ROLES | {"inference", "pull"},
    "gpu": ROLES | {"inference-gpu"},
    "mongo": ROLES | {"inference", "mongo", "api"},
    "tsdb": {"victoriametrics"},
}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_has_what_it_needs_and_nothing_else(profile: str) -> None:
    services = compose.project(*PROFILES[profile])["services"]
    assert set(services) == SERVICES[profile]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in services or how["required"] is False, f"{name} waits for {other}"
            wanted = services.get(other, {}).get("healthcheck", {})
            assert how["condition"] != "service_healthy" or other not in services or wanted.get("test")


def test_nothing_is_open_to_the_network_and_every_version_is_named() -> None:
    for name, service in compose.project("--profile", "*")["services"].items():
        assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+(-gpu)?", service["image"]), name
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name


@pytest.mark.parametrize("profile", ["default", "gpu"])
def test_settings_and_pipelines_are_valid(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    service = compose.project(*PROFILES[profile])["services"]["window"]
    [mount] = service["volumes"]
    monkeypatch.chdir(mount["source"])
    variables = {
        name: value.replace(mount["target"], mount["source"])
        for name, value in service["environment"].items()
    }
    file = variables.pop("OPENANOMALY_CONFIG")
    settings = load(file, variables, {})
    assert settings.store.url is not None
    stored = {"pipelines": yaml.safe_load(Path(settings.store.url).read_text())["pipelines"]}
    load(None, {}, {"pipelines": json.dumps(stored["pipelines"])})


def query(running: Running, expression: str) -> list[dict[str, Any]]:
    """The series of an expression over the last day, in VictoriaMetrics, as Grafana would ask."""
    words = urllib.parse.urlencode({"query": expression})
    answer = get(f"{running.url('victoriametrics', 8428)}/api/v1/query?{words}", timeout_s=30)
    result: list[dict[str, Any]] = json.loads(answer)["data"]["result"]
    return result


def see_a_spike(running: Running, fleet: str, windows: str) -> None:
    """The fleet's faults are scored, and this machine's series arrive by Prometheus."""
    process = running.processes[fleet]
    running.wait_until(lambda: not process.is_running, "the fleet to be sent", 90)
    assert process.wait(1) == 0, process.tail()
    spike = re.search(r"spike: (\w+)\{.*?instance=([\w-]+)", process.log.read_text())
    assert spike, process.tail()
    name, instance = spike.groups()
    score = f'max_over_time(anomaly_score{{for="{name}",instance="{instance}.demo:9100",pipeline="demo"}}[1d])'
    try:
        running.wait_until(lambda: any(float(s["value"][1]) > 1 for s in query(running, score)), "the spike")
    except Exception as exc:
        raise AssertionError(f"{exc}; {score} is {query(running, score)}") from exc

    watched = f"{running.url(windows, 9201)}/api/v1/admin/series/count?match=" + urllib.parse.quote(
        '{job="node",instance!~".+demo:9100"}'
    )
    running.wait_until(lambda: sum(json.loads(get(watched)).values()) > 100, "the series of this machine")
    running.wait_until(lambda: query(running, 'node_load1{job="node"}'), "samples for dashboards")
    running.wait_until(lambda: query(running, 'up{job="openanomaly"} == 1'), "our own metrics")


@pytest.mark.timeout(300)
def test_what_starts_by_default_scores_a_spike(tmp_path: Path) -> None:
    with compose.up(tmp_path) as running:
        see_a_spike(running, "fleet", "window")
        assert len(query(running, 'up{job="openanomaly"} == 1')) == 4
        assert query(running, "sum(openanomaly_inference_forecasts_total) > 0")
        running.check()


@pytest.mark.timeout(300)
def test_one_process_without_kafka_scores_a_spike(tmp_path: Path) -> None:
    with compose.up(tmp_path, "--profile", "standalone") as running:
        see_a_spike(running, "fleet-standalone", "openanomaly")
        running.check()
