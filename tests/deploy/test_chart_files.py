"""What the chart has from the rest of the repository: settings, alert rules, dashboards."""

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from deploy.chart import CHART, ROOT, helm, of_kind, render, values

PRESETS = ROOT / "stream" / "openanomaly" / "presets"
RULES = """\
groups:
  - name: test
    rules:
      - alert: Odd
        expr: anomaly_score > 1
        annotations: {summary: "{{ $labels.job }} is odd: {{ $value | humanize }}"}
"""
DASHBOARD = '{"title": "Scores", "panels": [{"legendFormat": "{{job}} `x`"}]}'


@pytest.fixture(scope="module")
def update() -> ModuleType:
    """charts/update.py"""
    spec = importlib.util.spec_from_file_location("chart_update", ROOT / "charts" / "update.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_schema_has_the_settings_of_the_product(update: ModuleType) -> None:
    text = (CHART / "values.schema.json").read_text()
    assert text == update.schema(json.loads(text)), "uv run charts/update.py"


def test_rules_and_dashboards_are_those_of_the_repository(update: ModuleType) -> None:
    assert update.present() == update.copies(), "uv run charts/update.py"


def test_copies_are_of_what_is_there(update: ModuleType, tmp_path: Path) -> None:
    for folder in ("alerts", "dashboards"):
        (tmp_path / folder).mkdir()
    (tmp_path / "alerts" / "odd.yaml").write_text(RULES)
    (tmp_path / "dashboards" / "scores.json").write_text(DASHBOARD)
    (tmp_path / "dashboards" / "README").write_text("no dashboard")
    found = {str(path.relative_to(CHART)): text for path, text in update.copies(tmp_path).items()}
    assert found == {"files/alerts/odd.yaml": RULES, "files/dashboards/scores.json": DASHBOARD}


def test_rules_and_dashboards_are_rendered_as_they_are(tmp_path: Path) -> None:
    """Their braces are Prometheus' and Grafana's, not Helm's."""
    chart = tmp_path / "openanomaly"
    shutil.copytree(CHART, chart)
    shutil.rmtree(chart / "files", ignore_errors=True)
    for folder, name, text in (("alerts", "odd.yaml", RULES), ("dashboards", "scores.json", DASHBOARD)):
        (chart / "files" / folder).mkdir(parents=True)
        (chart / "files" / folder / name).write_text(text)
    switches = ["--set", "prometheusRule.enabled=true,prometheusRule.files={odd},dashboards.enabled=true"]
    done = helm("template", "release", chart, "-f", values("kafka"), *switches)
    assert done.returncode == 0, done.stderr
    objects = tuple(each for each in yaml.safe_load_all(done.stdout) if each)
    assert of_kind(objects, "PrometheusRule")["alerts-odd"]["spec"] == yaml.safe_load(RULES)
    board = of_kind(objects, "ConfigMap")["dashboard-scores"]
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(board["data"]["scores.json"]) == json.loads(DASHBOARD)
    done = helm("template", "release", chart, "-f", values("kafka"))
    assert "humanize" not in done.stdout
    assert "grafana_dashboard" not in done.stdout


def test_every_file_of_rules_is_an_object_that_can_be_left_out() -> None:
    """Scores may be in another database than our own metrics, and rules are wanted where their series are."""
    files = {f"alerts-{path.stem}": path for path in (PRESETS / "alerts").glob("*.yaml")}
    objects = of_kind(render("everything"), "PrometheusRule")
    assert {name: each["spec"] for name, each in objects.items()} == {
        name: yaml.safe_load(path.read_text()) for name, path in files.items()
    }
    for name, each in objects.items():
        labels = each["metadata"]["labels"]
        assert (labels["openanomaly/alerts"], labels["release"]) == (
            name.removeprefix("alerts-"),
            "prometheus",
        )
    one = render("everything", "--set", "prometheusRule.files={health}")
    assert set(of_kind(one, "PrometheusRule")) == {"alerts-health"}
