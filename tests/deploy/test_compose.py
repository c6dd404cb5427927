"""docker-compose.yml does what it says: its own commands, settings and files score a spike.

The processes are those of the file (parts/compose.py), so the file cannot drift from what runs.
"""

import functools
import json
import re
import urllib.parse
from pathlib import Path

import pytest
import yaml

from openanomaly.settings.sources import load
from parts import compose
from parts.compose import Running
from parts.part import get
from parts.victoria import VictoriaMetrics

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


def values(running: Running, selector: str) -> list[float]:
    """All values of some series that VictoriaMetrics holds."""
    url = running.url("victoriametrics", 8428)
    found = VictoriaMetrics(url, running.processes["victoriametrics"]).export(selector)
    return [value for samples in found.values() for value in samples.values()]


def is_scraped(running: Running, address: str) -> bool:
    return 1.0 in values(running, f'up{{job="openanomaly",instance="{address}"}}')


def see_a_spike(running: Running, fleet: str, windows: str) -> None:
    """The fleet's faults are scored, and this machine's series arrive by Prometheus."""
    process = running.processes[fleet]
    running.wait_until(lambda: not process.is_running, "the fleet to be sent", 90)
    assert process.wait(1) == 0, process.tail()
    spike = re.search(r"spike: (\w+)\{.*?instance=([\w-]+)", process.log.read_text())
    assert spike, process.tail()
    name, instance = spike.groups()
    score = f'anomaly_score{{for="{name}",instance="{instance}.demo:9100",pipeline="demo"}}'
    running.wait_until(lambda: max(values(running, score), default=0.0) > 1, "the spike's score")
    watched = f"{running.url(windows, 9201)}/api/v1/admin/series/count?match=" + urllib.parse.quote(
        '{job="node",instance!~".+demo:9100"}'
    )
    running.wait_until(lambda: sum(json.loads(get(watched)).values()) > 100, "the series of this machine")
    running.wait_until(lambda: values(running, 'node_load1{job="node"}'), "samples for dashboards")
    running.wait_until(lambda: 1.0 in values(running, 'up{job="openanomaly"}'), "our own metrics")
    rules = json.loads(get(f"{running.url('vmalert', 8880)}/api/v1/rules"))["data"]["groups"]
    assert rules
    assert not [rule["lastError"] for group in rules for rule in group["rules"] if rule["lastError"]]


@pytest.mark.timeout(300)
def test_what_starts_by_default_scores_a_spike(tmp_path: Path) -> None:
    with compose.up(tmp_path) as running:
        see_a_spike(running, "fleet", "window")
        for role in ("receiver", "window", "inference", "sink"):
            address = running.url(role, 9201).removeprefix("http://")
            running.wait_until(functools.partial(is_scraped, running, address), f"metrics of {role}")
        running.check()


@pytest.mark.timeout(300)
def test_one_process_without_kafka_scores_a_spike(tmp_path: Path) -> None:
    with compose.up(tmp_path, "--profile", "standalone") as running:
        see_a_spike(running, "fleet-standalone", "openanomaly")
        running.check()
