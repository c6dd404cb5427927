"""docker-compose.yml does what it says: its own commands, settings and files score a spike.

The processes are those of the file (parts/compose.py), so the file cannot drift from what runs.
"""

import contextlib
import functools
import json
import re
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pymongo
import pytest
import yaml

from deploy.page import see_page
from openanomaly.adapters.statistical import StatisticalAdapter
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.playground import recorded, trial
from openanomaly.settings import PlaygroundSettings, Settings
from openanomaly.settings.clients import database
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
    "playground": ["--profile", "kafka", "--profile", "playground"],
    "standalone, playground": ["--profile", "standalone", "--profile", "playground"],
    "playground alone": ["--profile", "playground"],
}
AROUND = {"victoriametrics", "vmalert", "grafana", "node-exporter", "fleet-samples"}
ROLES = AROUND | {"kafka", "receiver", "window", "sink", "prometheus", "fleet"}
STANDALONE = AROUND | {"openanomaly", "prometheus-standalone", "fleet-standalone"}
SERVICES = {
    "default": ROLES | {"inference"},
    "standalone": STANDALONE,
    "pull": ROLES | {"inference", "pull"},
    "gpu": ROLES | {"inference-gpu"},
    "mongo": ROLES | {"inference", "mongo", "api"},
    "tsdb": {"victoriametrics"},
    "playground": ROLES | {"inference", "playground"},
    "standalone, playground": STANDALONE | {"playground"},
    "playground alone": {"playground"},
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
        assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+(-gpu|-playground)?", service["image"]), name
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


def see_the_playground(running: Running) -> None:
    """It is ready, and serves its page to those with the file's credentials alone."""
    running.wait_until_healthy("playground")
    given = running.services["playground"]["environment"]
    name, password = (given[f"OPENANOMALY_PLAYGROUND_AUTH_{what}"] for what in ("USERNAME", "PASSWORD"))
    see_page(running.address("playground", 9204), name, password)


def try_the_fleet(url: str) -> None:
    """As a page does, which finds faults in what the database has."""
    client = database(Settings.model_validate({"pull": {"url": url}}))
    assert client is not None
    with contextlib.closing(client):
        selector = '{instance=~".+demo:9100",__name__!~".+_total"}'
        pipeline = Pipeline(name="x", selector=selector, step_s=300, model="statistical")
        end_ms = round(time.time() * 1000)
        limits = PlaygroundSettings()
        data = recorded.of_database(client, pipeline, end_ms - 4 * 86_400_000, end_ms, limits, lambda: None)
    engines = {"statistical": StatisticalAdapter()}
    tried = trial.run(data, pipeline, engines, 60, lambda done, of: None)
    assert tried.unselected == 0
    assert tried.data.step_ms == 300_000
    assert max(s.max_score for s in tried.summary.series) > 2


@pytest.mark.timeout(300)
def test_roles_on_kafka_score_a_spike_and_pull_mode_asks_prometheus(tmp_path: Path) -> None:
    with compose.up(tmp_path, *PROFILES["pull"], "--profile", "playground") as running:
        see_a_spike(running, "fleet", "window")
        see_the_playground(running)
        for role in ("receiver", "window", "inference", "sink"):
            address = running.url(role, 9201).removeprefix("http://")
            running.wait_until(functools.partial(is_scraped, running, address), f"metrics of {role}")
        asked = 'openanomaly_pull_runs_total{outcome="ok",pipeline="cpu"} '
        metrics = f"{running.url('pull', 9201)}/metrics"
        running.wait_until(lambda: asked in get(metrics).decode(), "a query of Prometheus", 60)
        running.check()


@pytest.mark.timeout(300)
def test_one_process_without_kafka_scores_a_spike(tmp_path: Path) -> None:
    with compose.up(tmp_path, *PROFILES["standalone, playground"]) as running:
        see_a_spike(running, "fleet-standalone", "openanomaly")
        see_the_playground(running)
        # What pipelines are tried on: this machine's samples, and the fleet's.
        assert running.services["playground"]["environment"]["OPENANOMALY_PULL_URL"] == (
            "http://victoriametrics:8428"
        )
        assert values(running, 'node_load1{job="node"}')
        fleet = running.processes["fleet-samples"]
        running.wait_until(lambda: not fleet.is_running, "the fleet's samples to be sent", 90)
        assert fleet.wait(1) == 0, fleet.tail()
        get(f"{running.url('victoriametrics', 8428)}/internal/force_flush")
        try_the_fleet(running.url("victoriametrics", 8428))
        running.check()


def test_the_api_keeps_pipelines_in_mongodb(tmp_path: Path) -> None:
    with compose.up(tmp_path, *PROFILES["mongo"], "--profile", "mongo", "--profile", "playground") as running:
        running.wait_until_healthy("api")
        service = running.services["api"]
        token = service["environment"]["OPENANOMALY_API_AUTH_BEARER_TOKEN"]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        url = f"{running.url('api', 9202)}/api/v1/pipelines"
        body = b'{"name": "web", "selector": "up"}'
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as answer:
            assert answer.status == 201
        with pymongo.MongoClient(f"mongodb://{running.address('mongo', 27017)}") as client:
            [kept] = client["openanomaly"]["pipelines"].find()
        assert kept["definition"]["selector"] == "up"
        see_the_playground(running)


def test_the_playground_needs_nothing_of_the_others(tmp_path: Path) -> None:
    with compose.up(tmp_path, *PROFILES["playground alone"]) as running:
        see_the_playground(running)


def test_grafana_is_given_its_data_source_and_its_dashboards() -> None:
    services = compose.project()["services"]
    mounts = {mount["target"]: Path(mount["source"]) for mount in services["grafana"]["volumes"]}
    folder = mounts["/etc/grafana/provisioning"]
    [source] = yaml.safe_load((folder / "datasources/victoriametrics.yaml").read_text())["datasources"]
    address = urllib.parse.urlsplit(source["url"])
    assert [port["target"] for port in services[str(address.hostname)]["ports"]] == [address.port]
    [provider] = yaml.safe_load((folder / "dashboards/openanomaly.yaml").read_text())["providers"]
    dashboards = list(mounts[provider["options"]["path"]].glob("*.json"))
    assert dashboards
    for dashboard in dashboards:
        json.loads(dashboard.read_text())
