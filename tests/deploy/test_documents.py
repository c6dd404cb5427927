"""What the documents show works: settings are valid, linked files exist."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from openanomaly.errors import ConfigError
from openanomaly.settings import Settings
from openanomaly.settings.sources import load
from parts import debian

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    "README.md", "CONTRIBUTING.md", "bench/README.md", "tests/golden/README.md",
    "docs/api.md", "docs/backtest.md", "docs/configuration.md", "docs/dashboards.md", "docs/deployment.md",
    "docs/kubernetes.md", "docs/pipeline-stores.md", "docs/presets.md", "docs/recipes.md", "docs/sizing.md",
]  # fmt: skip


def test_the_pipelines_of_the_readme_are_valid() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    shown = [block for block in map(yaml.safe_load, blocks) if "pipelines" in block]
    assert [pipeline.name for each in shown for pipeline in Settings.model_validate(each).pipelines] == [
        "api"
    ]


def test_the_settings_of_pull_mode_are_valid() -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/pull-mode.md").read_text(), re.DOTALL)
    settings = Settings.model_validate(yaml.safe_load(shown))
    assert [p.query is not None for p in settings.pipelines] == [True]
    assert settings.pull.url is not None


RECIPES = [
    (section.split("\n")[0], text)
    for section in (ROOT / "docs/recipes.md").read_text().split("\n## ")[1:]
    for text in re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
]


@pytest.mark.parametrize(("title", "text"), RECIPES, ids=[title for title, _ in RECIPES])
def test_recipes_are_valid(title: str, text: str, tmp_path: Path) -> None:
    assert text.strip(), title
    if title == "Who is told":
        (tmp_path / "rules.yaml").write_text(text)
        program = [debian.program("promtool"), "check", "rules", str(tmp_path / "rules.yaml")]
        assert subprocess.run(program, capture_output=True, check=False).returncode == 0
        return
    (tmp_path / "openanomaly.yaml").write_text(text)
    load(str(tmp_path / "openanomaly.yaml"), {}, {})


@pytest.mark.parametrize("document", [*DOCUMENTS, "charts/openanomaly/values.yaml"])
def test_variables_are_those_of_settings(document: str) -> None:
    of_tests = ("OPENANOMALY_TEST_", "OPENANOMALY_PARTS", "OPENANOMALY_COMPILED")
    named = set(re.findall(r"OPENANOMALY_[A-Z0-9_]*[A-Z0-9]", (ROOT / document).read_text()))
    unknown = [name for name in named if not name.startswith(of_tests) and "no such" in problems(name)]
    assert not unknown


def problems(variable: str) -> str:
    """What is said of a variable of that name."""
    try:
        load(None, {variable: ""}, {})
    except ConfigError as exc:
        return str(exc)
    return ""


@pytest.mark.parametrize("document", DOCUMENTS)
def test_linked_files_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", text) + re.findall(
        r"uv run[^`\n]*? ((?:bench|tests)/[a-z0-9_/]+\.py)", text
    )
    folder = (ROOT / document).parent
    assert links or document.startswith("tests")
    missing = [link for link in links if not ((folder / link).exists() or (ROOT / link).exists())]
    assert not missing
