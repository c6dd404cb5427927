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
        ("mtls", {"standalone": "StatefulSet"}),
        ("pull", {"pull": "StatefulSet"}),
        ("playground", {"playground": "Deployment"}),
        (
            "everything",
            {**ROLES, "api": "Deployment", "playground": "Deployment", "pull": "StatefulSet"},
        ),
    ],
)
def test_every_role_has_a_workload_of_its_own(shape: str, kinds: dict[str, str]) -> None:
    assert {role: each["kind"] for role, each in workloads(render(shape)).items()} == kinds


def test_every_shape_is_looked_at() -> None:
    assert len(SHAPES) == 10


CLIENT_CA = [
    "podMonitor.enabled=true",
    *(
        f"config.web.tls.{name}=/etc/openanomaly/{name}"
        for name in ("cert_file", "key_file", "client_ca_file")
    ),
]


@pytest.mark.parametrize(
    ("shape", "flags", "message"),
    [
        ("kafka", ["config.broker.url="], "set config.broker.url"),
        ("kafka", ["config.broker.url=embedded://data"], 'not "embedded://data"'),
        ("standalone", ["config.broker.url=kafka://kafka:9092"], "stream standalone has a broker of its own"),
        ("kafka", ["config.sink.url="], "set config.sink.url"),
        ("pull", ["config.pull.url="], "set config.pull.url"),
        ("pull", ["pull.enabled=false"], "nothing would run"),
        ("playground", ["playground.enabled=false"], "nothing would run"),
        ("playground", ["playground.replicas=2"], "replicas"),
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
        ("kafka", ["config.sink.url=http://t0ken@host/"], "put OPENANOMALY_SINK_URL into the Secret"),
        ("pull", ["config.pull.url=http://t0ken@host/"], "put OPENANOMALY_PULL_URL into the Secret"),
        ("kafka", ["config.store.url=mongodb://a:b@host/"], "put OPENANOMALY_STORE_URL into the Secret"),
        ("kafka", ["config.api.admin_url=http://a@host/"], "put OPENANOMALY_API_ADMIN_URL into the Secret"),
        ("kafka", ["config.broker.url=kafka://a:b@kafka:9092"], "put OPENANOMALY_BROKER_SASL_PASSWORD into"),
        ("kafka", ["config.sink.headers.X-Api-Key=word"], "config.sink.headers.X-Api-Key may be a secret"),
        ("kafka", ["files.kafka.secret=a", "files.kafka.configMap=b"], "/files/kafka"),
        ("kafka", ["files.config.secret=a"], "invalid propertyName 'config'"),
        ("kafka", ["podMonitor.interval=15"], "/podMonitor/interval"),
        ("kafka", ["receiver.replicas=0"], "/receiver/replicas"),
        ("kafka", ["window.replicas=0"], "/window/replicas"),
        ("kafka", ["inference.replicas=0"], "/inference/replicas"),
        ("kafka", ["sink.replicas=0"], "/sink/replicas"),
        ("kafka", ["prometheusRule.files={health,heath}"], 'there are no rules "heath"'),
        ("standalone", CLIENT_CA, "config.web.tls.client_ca_file who scrapes must show"),
        ("standalone", [*CLIENT_CA, "podMonitor.tlsConfig.cert.secret.name=a"], "/podMonitor/tlsConfig/cert"),
        ("standalone", [*CLIENT_CA, "podMonitor.tlsConfig.keySecret.name=a",
            "podMonitor.tlsConfig.keySecret.key=b"], "set podMonitor.tlsConfig.cert and .keySecret"),
        ("everything", ["config.api.tls.client_ca_file=a"], "config.api.tls.client_ca_file who scrapes must"),
        ("everything", ["config.playground.tls.client_ca_file=a"],
            "config.playground.tls.client_ca_file who scrapes must"),
        ("mtls", ["test.keyFile="], "test.certFile and test.keyFile belong together"),
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
    """Dotted names of the settings that are kept secret, `*` for any key of a mapping."""

    def walk(node: Any, path: tuple[str, ...]) -> Iterator[str]:
        if not isinstance(node, dict):
            return  # `additionalProperties: false`
        if node.get("writeOnly"):
            yield ".".join(path)
        if "$ref" in node:
            yield from walk(schema["$defs"][node["$ref"].rpartition("/")[2]], path)
        for each in node.get("anyOf", ()):
            yield from walk(each, path)
        for name, option in node.get("properties", {}).items():
            yield from walk(option, (*path, name))
        for option in (node.get("additionalProperties"), *node.get("patternProperties", {}).values()):
            yield from walk(option, (*path, "*"))
        yield from walk(node.get("items"), (*path, "0"))

    yield from walk(schema, ())


SECRETS = sorted(set(secret_settings(schema_of(Settings))))


def test_secrets_are_found() -> None:
    assert {"sink.password", "broker.sasl_password", "web.auth.bearer_token", "sink.headers.*"} <= set(
        SECRETS
    )


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_in_the_config_map_are_refused(name: str) -> None:
    words = ["--set", f"config.{name.replace('*', 'Authorization')}=word"]
    done = helm("template", "release", CHART, "-f", values("kafka"), *words)
    variable = f"OPENANOMALY_{name.removesuffix('.*').replace('.', '_').upper()}"
    assert f"put {variable} into the Secret that `secret` names" in done.stderr


def test_a_tenant_is_no_secret() -> None:
    headers = {"X-Scope-OrgID": "a", "x-scope-orgid": "b", "AccountID": "1", "ProjectID": "2"}
    found = settings(render("kafka", "--set-json", f"config.sink.headers={json.dumps(headers)}"))
    assert found["sink"]["headers"] == headers


def test_an_at_sign_behind_the_host_is_no_credential() -> None:
    url = "http://host:8428/api/v1/write?extra_label=team=a@b"
    assert settings(render("kafka", "--set", f"config.sink.url={url}"))["sink"]["url"] == url


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
    assert len(SHOWN) == 7


@pytest.mark.parametrize("shape", SHAPES)
def test_notes_tell_where_to_push_and_whom_to_ask(shape: str) -> None:
    words = ["install", "mine", CHART, "-f", values(shape), "-n", "there", "--dry-run=client"]
    done = helm(*words)
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    address = {
        "pull": "Pull mode asks http://prometheus:9090.",
        "playground": "port-forward service/mine-playground 9204:9204\n  http://localhost:9204/\n",
        "everything": "url: https://mine-receiver.there:443/api/v1/write",
        "mtls": "url: https://mine-receiver.there:9201/api/v1/write",
    }.get(shape, "url: http://mine-receiver.there:9201/api/v1/write")
    assert address in notes
    assert ("remote_write:" in notes) == (shape not in ("pull", "playground"))
    assert ("helm --namespace there test mine" in notes) == (shape not in ("pull", "playground"))
    assert ("Alert rules on scores (scores, kubernetes, node-exporter)" in notes) == (shape == "everything")
    assert ("mine-api.there:9202/openapi.json" in notes) == (shape in ("mongo-api", "everything"))
    assert ("service/mine-playground" in notes) == (shape in ("playground", "everything"))
    assert ("OPENANOMALY_PLAYGROUND_AUTH_PASSWORD in the Secret" in notes) == (shape == "playground")
    assert "<no value>" not in notes


def test_notes_tell_of_the_rules_that_are_there_and_of_a_test_that_is_not() -> None:
    def notes(shape: str, *flags: str) -> str:
        words = ["install", "mine", CHART, "-f", values(shape), *flags, "--dry-run=client"]
        return helm(*words).stdout.partition("NOTES:")[2]

    assert "Alert rules" not in notes("everything", "--set", "prometheusRule.files={health}")
    assert "Alert rules on scores (scores) see" in notes(
        "everything", "--set", "prometheusRule.files={scores}"
    )
    without = notes("mtls", "--set", "test.certFile=,test.keyFile=")
    assert "helm --namespace" not in without
    assert "`helm test` has nothing to run" in without
