"""The chart renders objects that Kubernetes accepts, and refuses values that cannot work."""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.chart import CHART, ROOT, SHAPES, helm, render, settings, values, workloads
from openanomaly.core.schema import schema_of
from openanomaly.settings import Settings
from parts import tools

OF_KUBERNETES = re.compile(r"v1|(apps|policy|autoscaling)/v\d|networking\.k8s\.io/v1")


@pytest.mark.parametrize("shape", SHAPES)
def test_lint_has_no_findings(shape: str) -> None:
    done = helm("lint", "--strict", CHART, "-f", values(shape))
    assert done.returncode == 0, done.stdout


def test_every_shape_is_valid_for_kubernetes(tmp_path: Path) -> None:
    files = []
    for shape in SHAPES:
        objects = [each for each in render(shape) if OF_KUBERNETES.fullmatch(each["apiVersion"])]
        files.append(tmp_path / f"{shape}.yaml")
        files[-1].write_text(yaml.safe_dump_all(objects))
    for version in ("1.25.0", "1.31.0", "1.37.0"):
        done = tools.run(tools.KUBERNETES_VALIDATE, "kubernetes-validate", "--strict", "-k", version, *files)
        assert done.returncode == 0, done.stdout + done.stderr


def test_other_objects_are_those_of_operators() -> None:
    others = {
        each["apiVersion"]: each["kind"]
        for each in render("everything")
        if not OF_KUBERNETES.fullmatch(each["apiVersion"])
    }
    # Kinds beside these would be checked by nothing here.
    assert set(others) <= {"keda.sh/v1alpha1", "monitoring.coreos.com/v1"}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_configuration_reaches_the_product_unchanged(shape: str) -> None:
    assert settings(render(shape)) == yaml.safe_load(values(shape).read_text())["config"]


def test_large_numbers_stay_whole_numbers() -> None:
    found = settings(
        render("kafka", "--set-json", 'config.broker={"url":"kafka://k:1","disk_limit_bytes":21474836480}')
    )
    assert found["broker"]["disk_limit_bytes"] == 21474836480


ROLES = {"receiver": "Deployment", "window": "StatefulSet", "inference": "Deployment", "sink": "Deployment"}


@pytest.mark.parametrize(
    ("shape", "kinds"),
    [
        ("kafka", ROLES),
        ("kafka-sasl-tls", ROLES),
        ("gpu", ROLES),
        ("keda", ROLES),
        ("mongo-api", {**ROLES, "api": "Deployment"}),
        ("standalone", {"standalone": "StatefulSet"}),
        ("pull", {"pull": "StatefulSet"}),
        ("everything", {**ROLES, "api": "Deployment", "pull": "StatefulSet"}),
    ],
)
def test_every_role_has_a_workload_of_its_own(shape: str, kinds: dict[str, str]) -> None:
    assert {role: each["kind"] for role, each in workloads(render(shape)).items()} == kinds


def test_every_shape_is_looked_at() -> None:
    assert len(SHAPES) == 8


@pytest.mark.parametrize(
    ("shape", "flags", "message"),
    [
        ("kafka", ["config.broker.url="], "set config.broker.url"),
        ("kafka", ["config.broker.url=embedded://data"], 'not "embedded://data"'),
        ("standalone", ["config.broker.url=kafka://kafka:9092"], "stream standalone has a broker of its own"),
        ("kafka", ["config.sink.url="], "set config.sink.url"),
        ("pull", ["config.pull.url="], "set config.pull.url"),
        ("pull", ["pull.enabled=false"], "nothing would run"),
        ("kafka", ["stream=both"], "/stream"),
        ("kafka", ["receiver.service.port=99999"], "/receiver/service/port"),
        ("kafka", ["receiver.service.port=0"], "/receiver/service/port"),
        ("kafka", ["window.replica=3"], "replica"),
        ("kafka", ["window.replicas=17"], "window: 17 pods for 16 partitions"),
        ("kafka", ["sink.replicas=3", "config.broker.partitions=2"], "3 pods for 2 partitions"),
        ("keda", ["window.autoscaling.maxReplicas=33"], "window: 33 pods for 32 partitions"),
        ("keda", ["keda.serverAddress="], "set keda.serverAddress"),
        ("keda", ["receiver.autoscaling.minReplicas=11"], "minReplicas 11 is more than maxReplicas 10"),
        ("kafka", ["pod.terminationGracePeriodSeconds=25"], "terminationGracePeriodSeconds 25 is too short"),
        ("kafka", ["config.broker.session_timeout_s=1m"], "terminationGracePeriodSeconds 60 is too short"),
        ("kafka", ["config.sink.timout_s=3"], "'timout_s' not allowed"),
        ("kafka", ["config.broker.partitions=0"], "/config/broker"),
        ("kafka", ["config.pipelines[0].step_s=0"], "/config/pipelines"),
        ("kafka", ["config.sink.url=http://me:word@host/"], "put OPENANOMALY_SINK_URL into the Secret"),
        ("kafka", ["files.kafka.secret=a", "files.kafka.configMap=b"], "/files/kafka"),
        ("kafka", ["files.config.secret=a"], "invalid propertyName 'config'"),
        ("kafka", ["podMonitor.interval=15"], "/podMonitor/interval"),
    ],
)  # fmt: skip
def test_values_that_cannot_work_are_refused(shape: str, flags: list[str], message: str) -> None:
    words = [word for flag in flags for word in ("--set", flag)]
    done = helm("template", "release", CHART, "-f", values(shape), *words)
    assert done.returncode != 0
    assert message in done.stderr


def test_names_that_kubernetes_would_refuse_are_refused() -> None:
    """A StatefulSet of 53 characters is taken, and can never have a pod: its label would be too long."""
    assert helm("template", "r" * 40, CHART, "-f", values("standalone")).returncode == 0
    done = helm("template", "r" * 41, CHART, "-f", values("standalone"))
    assert "more than 40 characters" in done.stderr


def secret_settings(schema: dict[str, Any]) -> Iterator[str]:
    """Dotted names of the settings that are kept secret."""

    def walk(node: dict[str, Any], path: str) -> Iterator[str]:
        for name, option in node.get("properties", {}).items():
            here = f"{path}.{name}" if path else name
            for each in (option, *option.get("anyOf", ())):
                if each.get("writeOnly"):
                    yield here
                if "$ref" in each:
                    yield from walk(schema["$defs"][each["$ref"].rpartition("/")[2]], here)

    yield from walk(schema, "")


SECRETS = sorted(set(secret_settings(schema_of(Settings))))


def test_secrets_are_found() -> None:
    assert {"sink.password", "broker.sasl_password", "web.auth.bearer_token"} <= set(SECRETS)


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_in_the_config_map_are_refused(name: str) -> None:
    done = helm("template", "release", CHART, "-f", values("kafka"), "--set", f"config.{name}=word")
    variable = f"OPENANOMALY_{name.replace('.', '_').upper()}"
    assert f"put {variable} into the Secret that `secret` names" in done.stderr


def test_every_value_is_explained_and_has_a_rule() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    for before, line in itertools.pairwise(lines):
        is_leaf = line.strip() and not line.strip().startswith("#") and not line.rstrip().endswith(":")
        if is_leaf:
            assert before.strip().startswith("#"), line
    assert sum("# -- " in line for line in lines) == sum(
        bool(re.match(r" *[a-zA-Z]+: +\S", line)) for line in lines
    )


def test_the_schema_has_every_value_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    given = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(schema["properties"]) == {*given, "global"}

    def is_closed(node: Any) -> None:
        """Whatever has properties has no others."""
        if isinstance(node, dict):
            assert "properties" not in node or node.get("additionalProperties") is False or "type" not in node
            for each in node.values():
                is_closed(each)

    is_closed(schema)


SHOWN = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/kubernetes.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("text", SHOWN)
def test_values_that_the_documents_show_are_taken(text: str, tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text(text)
    done = helm("lint", "--strict", CHART, "-f", tmp_path / "values.yaml")
    assert done.returncode == 0, done.stdout


def test_documents_show_values() -> None:
    assert len(SHOWN) == 5


@pytest.mark.parametrize("shape", SHAPES)
def test_notes_tell_where_to_push_and_whom_to_ask(shape: str) -> None:
    words = ["install", "mine", CHART, "-f", values(shape), "-n", "there", "--dry-run=client"]
    done = helm(*words)
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    address = {
        "pull": "Pull mode asks http://prometheus:9090.",
        "everything": "url: https://mine-receiver.there:443/api/v1/write",
    }.get(shape, "url: http://mine-receiver.there:9201/api/v1/write")
    assert address in notes
    assert ("remote_write:" in notes) == (shape != "pull")
    assert ("mine-api.there:9202/openapi.json" in notes) == (shape in ("mongo-api", "everything"))
    assert "<no value>" not in notes
