"""Objects that operators take are such as they take: those of KEDA and of the Prometheus operator."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from deploy.chart import SHAPES, Object, render
from deploy.test_chart import OF_KUBERNETES

SCHEMAS: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "operators.yaml").read_text())
KINDS = {"ScaledObject", "PodMonitor", "PrometheusRule"}


def wrong(each: Object) -> list[str]:
    """What its operator would refuse of an object."""
    schema = {**SCHEMAS, "$ref": f"#/$defs/{each['kind']}"}
    return [f"{found.json_path}: {found.message}" for found in Draft202012Validator(schema).iter_errors(each)]


def of_operators(shape: str) -> list[Object]:
    return [each for each in render(shape) if not OF_KUBERNETES.fullmatch(each["apiVersion"])]


def test_schemas_are_schemas() -> None:
    for kind in KINDS:
        Draft202012Validator.check_schema({**SCHEMAS, "$ref": f"#/$defs/{kind}"})


@pytest.mark.parametrize("shape", SHAPES)
def test_operators_take_every_object(shape: str) -> None:
    for each in of_operators(shape):
        assert each["kind"] in KINDS
        assert wrong(each) == [], each["metadata"]["name"]


def test_every_kind_and_every_option_is_looked_at() -> None:
    found = [each for shape in SHAPES for each in of_operators(shape)]
    assert {each["kind"] for each in found} == KINDS
    text = str(found)
    for option in ("authenticationRef", "insecureSkipVerify", "keySecret"):
        assert option in text


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("ScaledObject", "spec.triggers.0.metadata.threshold", 30),
        ("ScaledObject", "spec.triggers.0.metadata.ignoreNullValues", False),
        ("ScaledObject", "spec.triggers.0.metadata.serverAdress", "http://a"),
        ("ScaledObject", "spec.triggers.0.metricType", "Utilization"),
        ("ScaledObject", "spec.minReplicas", 1),
        ("ScaledObject", "spec.scaleTargetRef.kind", "DaemonSet"),
        (
            "ScaledObject",
            "spec.advanced.horizontalPodAutoscalerConfig.behavior.scaleDown.policies.0.value",
            0,
        ),
        ("PodMonitor", "spec.podMetricsEndpoints.0.targetPort", 9201),
        ("PodMonitor", "spec.podMetricsEndpoints.0.interval", "15"),
        ("PodMonitor", "spec.podMetricsEndpoints.0.tlsConfig", {"caFile": "/ca.crt"}),
        ("PodMonitor", "spec.selector.matchExpressions.0.operator", "NotEqual"),
        ("PodMonitor", "spec.joblabel", "a"),
        ("PodMonitor", "metadata.labels.release", True),
        ("PrometheusRule", "spec.groups.0.rules.0.for", 300),
        ("PrometheusRule", "spec.groups.0.rules.0.severity", "critical"),
        ("PrometheusRule", "spec.groups.0.rules.0.labels.step", 60),
        ("PrometheusRule", "spec.rules", []),
        ("PrometheusRule", "metadata.name", "release_alerts"),
    ],
)
def test_what_they_refuse_is_seen(kind: str, path: str, value: Any) -> None:
    each = copy.deepcopy(next(each for each in of_operators("everything") if each["kind"] == kind))
    assert wrong(each) == []
    *parents, last = path.split(".")
    node: Any = each
    for name in parents:
        node = node[int(name)] if isinstance(node, list) else node[name]
    node[last] = value
    assert wrong(each)
