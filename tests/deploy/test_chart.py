"""The chart renders objects that Kubernetes accepts, and refuses values that cannot work."""

import itertools
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from openanomaly.settings import Settings
from parts import tools

CHART = Path(__file__).parents[2] / "charts" / "openanomaly"
SHAPES = sorted(path.name for path in (CHART / "ci").glob("*-values.yaml"))


def helm(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [tools.helm(), *map(str, words)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def render(shape: str, *flags: str) -> list[dict[str, Any]]:
    done = helm("template", "release", CHART, "-f", CHART / "ci" / shape, *flags)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_valid_for_kubernetes(tmp_path: Path, shape: str) -> None:
    assert helm("lint", "--strict", CHART, "-f", CHART / "ci" / shape).returncode == 0
    rendered = tmp_path / "rendered.yaml"
    rendered.write_text(yaml.safe_dump_all(render(shape)))
    for version in ("1.25.0", "1.34.0"):
        done = tools.run(
            tools.KUBERNETES_VALIDATE, "kubernetes-validate", "--strict", "-k", version, rendered
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("shape", SHAPES)
def test_the_configuration_reaches_the_product_unchanged(shape: str) -> None:
    [config] = [each for each in render(shape) if each["kind"] == "ConfigMap"]
    given = yaml.safe_load((CHART / "ci" / shape).read_text())["config"]
    found = yaml.safe_load(config["data"]["openanomaly.yaml"])
    assert found == given
    Settings.model_validate(found)


def test_every_role_has_a_deployment_and_only_inference_another_image() -> None:
    pods = {
        each["metadata"]["name"]: each["spec"]["template"]["spec"]["containers"][0]
        for each in render("chronos-values.yaml")
        if each["kind"] == "Deployment"
    }
    images = {name.removeprefix("release-"): pod["image"] for name, pod in pods.items()}
    base = "openanomaly:0.1.0"
    chronos = "openanomaly:chronos"
    assert images == {"receiver": base, "window": base, "inference": chronos, "sink": base}
    assert all(pod["args"][0] == name.removeprefix("release-") for name, pod in pods.items())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--set", "config.broker.url="], "set config.broker.url"),
        (["--set", "config.broker.url=embedded://data"], 'not "embedded://data"'),
        (["--set", "config.sink.url="], "set config.sink.url"),
        (["--set", "receiver.service.port=99999"], "/receiver/service/port"),
        (["--set", "window.replica=3"], "replica"),
    ],
)
def test_values_that_cannot_work_are_refused(flags: list[str], message: str) -> None:
    done = helm("template", "release", CHART, "-f", CHART / "ci" / "kafka-values.yaml", *flags)
    assert done.returncode != 0
    assert message in done.stderr


def test_every_value_is_explained() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    for before, line in itertools.pairwise(lines):
        is_leaf = line.strip() and not line.strip().startswith("#") and not line.rstrip().endswith(":")
        if is_leaf:
            assert before.strip().startswith("#"), line
