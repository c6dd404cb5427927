"""The files that deploy the product are what their own tools accept."""

from pathlib import Path

import pytest
import yaml

from openanomaly.core.pipelines.pipeline import Pipeline
from parts import tools

ROOT = Path(__file__).parents[2]


def test_the_dockerfile_has_no_findings() -> None:
    done = tools.run(tools.HADOLINT, "hadolint", ROOT / "Dockerfile")
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_reads_its_file() -> None:
    done = tools.run(tools.COMPOSE, "docker-compose", "-f", ROOT / "docker-compose.yml", "config", "-q")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_pipelines_of_the_compose_file_are_valid() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    config = yaml.safe_load(compose["configs"]["openanomaly"]["content"])
    assert [Pipeline.model_validate(each).name for each in config["pipelines"]] == ["default"]


@pytest.mark.parametrize("script", [".ci/run", "proto/generate"])
def test_shell_scripts_have_no_findings(script: str) -> None:
    done = tools.run(tools.SHELLCHECK, "shellcheck", ROOT / script)
    assert done.returncode == 0, done.stdout + done.stderr
