"""The files that deploy the product are what their own tools accept."""

from pathlib import Path

import pytest

from parts import tools

ROOT = Path(__file__).parents[2]


def test_the_dockerfile_has_no_findings() -> None:
    done = tools.run(tools.HADOLINT, "hadolint", ROOT / "Dockerfile")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", [".ci/run", "proto/generate"])
def test_shell_scripts_have_no_findings(script: str) -> None:
    done = tools.run(tools.SHELLCHECK, "shellcheck", ROOT / script)
    assert done.returncode == 0, done.stdout + done.stderr
