"""Dashboards are what their source says, and ask for nothing that is not there."""

import itertools
import json
import re
import runpy
import subprocess
import urllib.error
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.expressions import named, unknown
from deploy.watched import ALONE, OWN, Watched, watch
from dues import OnDevice
from openanomaly import presets
from openanomaly.core.pipelines.selector import Matcher, Selector
from openanomaly.telemetry import Telemetry
from parts import debian
from parts.part import get

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "deploy" / "grafana"
HEALTH = GRAFANA / "health.yaml"
GENERATE = runpy.run_path(str(GRAFANA / "generate.py"))
SOURCES = sorted(GRAFANA.glob("*.yaml"))
PRESETS = ROOT / "stream" / "openanomaly" / "presets"
RULES = sorted((PRESETS / "alerts").glob("*.yaml"))
GRAFANAS_OWN = {"__range": "1h", "__rate_interval": "15m"}
CHOSEN = {"metric": "node_cpu_seconds_total"}
"""Values of variables of which one is chosen; others stand at `.*`, for all."""
WITHOUT_DATA = re.compile(r'openanomaly_pull_|role="pull"|openanomaly_inference_device_memory_')
"""What the product under test has nothing of: it does not pull, and has no GPU."""
Json = dict[str, Any]

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    yield from watch(tmp_path_factory.mktemp("watched"))


@pytest.fixture(scope="module")
def exported(watched: Watched) -> dict[str, frozenset[str]]:
    """Labels of every metric that is written or exported, in pull mode and on a GPU too."""
    telemetry = Telemetry()
    telemetry.inference.engines({"m": OnDevice("cuda:0")})
    telemetry.pull.runs.labels("p", "ok")
    telemetry.pull.pending.labels("p")
    telemetry.pull.newest.labels("p")
    elsewhere = {
        sample.name: frozenset({*sample.labels, "job", "namespace", "instance"})
        for metric in telemetry.registry.collect()
        for sample in metric.samples
        if WITHOUT_DATA.match(sample.name)
    }
    return elsewhere | watched.exported


def dashboard(source: Path) -> Json:
    found: Json = json.loads(written(source).read_text())
    return found


def written(source: Path) -> Path:
    """Its JSON, in the package."""
    return PRESETS / "dashboards" / f"{source.stem}.json"


def panels(source: Path) -> list[Json]:
    return [panel for panel in dashboard(source)["panels"] if panel["type"] != "row"]


def queries(source: Path, **chosen: str) -> list[tuple[str, str]]:
    """Title of its panel and text of each query, with the values of variables."""
    return [
        (panel["title"], replaced(target["expr"], source, **chosen))
        for panel in panels(source)
        for target in panel["targets"]
    ]


def replaced(query: str, source: Path, **chosen: str) -> str:
    """A query with variables as Grafana would fill them in.

    Args:
        chosen: values of some of the variables.

    Raises:
        KeyError: the dashboard has no such variable.
    """
    variables = {each["name"] for each in dashboard(source)["templating"]["list"]}
    values = GRAFANAS_OWN | {name: CHOSEN.get(name, ".*") for name in variables} | chosen
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], query)


def rules(file: Path) -> list[tuple[str, str]]:
    groups = yaml.safe_load(file.read_text())["groups"]
    return [(rule["alert"], rule["expr"]) for group in groups for rule in group["rules"]]


def expressions(file: Path) -> list[tuple[str, str]]:
    return queries(file) if file in SOURCES else rules(file)


def ask(watched: Watched, expression: str) -> list[Json]:
    query = urllib.parse.urlencode({"query": expression, "time": f"{watched.at_s:.3f}"})
    try:
        answer = get(f"{watched.store.url}/api/v1/query?{query}", timeout_s=30)
    except urllib.error.HTTPError as exc:
        pytest.fail(f"{expression}: {exc.read().decode()}")
    found: list[Json] = json.loads(answer)["data"]["result"]
    return found


each_source = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
each_file = pytest.mark.parametrize("file", [*SOURCES, *RULES], ids=lambda f: f"{f.parent.name}/{f.stem}")


@each_source
def test_the_json_is_what_its_source_says(source: Path) -> None:
    assert written(source).read_text() == GENERATE["written"](source), "uv run deploy/grafana/generate.py"


def test_every_json_has_a_source_and_dashboards_differ() -> None:
    assert {file.stem for file in (PRESETS / "dashboards").iterdir()} == {source.stem for source in SOURCES}
    assert len({dashboard(source)["uid"] for source in SOURCES}) == len(SOURCES)


def test_every_preset_has_a_dashboard_and_rules_and_so_have_scores_and_health() -> None:
    names = {*presets.names(), "scores", "health"}
    assert names == {source.stem for source in SOURCES} == {file.stem for file in RULES}


@each_source
def test_panels_lie_beside_each_other_and_say_what_they_show(source: Path) -> None:
    everything = dashboard(source)["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    taken: set[tuple[int, int]] = set()
    for panel in everything:
        at = panel["gridPos"]
        cells = set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in panels(source):
        assert len(panel["description"]) > 3, panel["title"]
        assert "<" not in "".join(target["expr"] for target in panel["targets"]).replace("<=", ""), panel[
            "title"
        ]


@each_source
def test_edges_of_a_band_are_queries_of_its_panel(source: Path) -> None:
    for panel in panels(source):
        legends = {target["legendFormat"] for target in panel["targets"]}
        for override in panel["fieldConfig"]["overrides"]:
            named = {override["matcher"]["options"]} | {
                each["value"] for each in override["properties"] if each["id"] == "custom.fillBelowTo"
            }
            assert named <= legends


@each_file
def test_only_what_is_exported_is_named(file: Path, exported: dict[str, frozenset[str]]) -> None:
    wrong = {title: unknown(text, exported) for title, text in expressions(file)}
    assert {title: missing for title, missing in wrong.items() if missing} == {}


@each_file
def test_values_of_labels_are_there_too(file: Path, watched: Watched) -> None:
    """`reason="stale"` and the like: each matcher of our own metrics chooses some of the series there are."""
    for title, text in expressions(file):
        for selector in re.findall(r"openanomaly_\w+\{[^}]*\}", text):
            if not WITHOUT_DATA.search(selector):
                assert ask(watched, selector), (title, selector)


@each_source
def test_variables_have_values(source: Path, watched: Watched) -> None:
    for variable in dashboard(source)["templating"]["list"]:
        if variable["type"] == "query":
            query = replaced(variable["query"]["query"], source)
            found = re.fullmatch(r"label_values\((.*), (\w+)\)", query)
            assert found, query
            assert any(found[2] in series["metric"] for series in ask(watched, found[1])), query


@each_source
def test_victoria_metrics_has_data_for_every_panel(source: Path, watched: Watched) -> None:
    empty = [
        (title, text)
        for title, text in queries(source)
        if not ask(watched, text) and not WITHOUT_DATA.search(text)
    ]
    assert empty == []


def test_health_is_shown_of_one_installation_where_two_have_one_name() -> None:
    for title, text in queries(HEALTH):
        assert all({"namespace", "job", "instance"} <= labels for labels in named(text).metrics.values()), (
            title
        )


def test_health_is_that_of_no_other_program(watched: Watched) -> None:
    assert ask(watched, 'process_resident_memory_bytes{job="node"}'), "node_exporter has it too"
    shown = {series["metric"].get("job") for _, text in queries(HEALTH) for series in ask(watched, text)}
    assert shown == {OWN["job"], ALONE["job"], None}


def test_health_is_shown_where_nothing_has_a_namespace(watched: Watched) -> None:
    """As outside Kubernetes, where all namespaces are chosen."""
    assert ask(watched, 'openanomaly_ready{job="alone"}')
    assert not ask(watched, 'openanomaly_ready{job="alone", namespace!=""}')
    empty = [
        (title, text)
        for title, text in queries(HEALTH, job=ALONE["job"])
        if not ask(watched, text) and not WITHOUT_DATA.search(text)
    ]
    assert empty == []
    of_nobody = [title for title, text in queries(HEALTH, namespace="nowhere") if ask(watched, text)]
    assert of_nobody == ["Roles that are not ready"], "which are none"


@each_source
def test_prometheus_reads_every_query(source: Path, tmp_path: Path) -> None:
    every = [{"record": "panel", "expr": text} for _, text in queries(source)]
    every = [{**rule, "labels": {"number": str(i)}} for i, rule in enumerate(every)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": every}]}))
    program = [debian.program("promtool"), "check", "rules", str(file)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@each_file
def test_pipelines_that_are_named_are_those_of_presets(file: Path) -> None:
    shipped = {pipeline.name for name in presets.names() for pipeline in presets.pipelines(name)}
    for title, text in expressions(file):
        for matcher in matchers_of_pipelines(text):
            if matcher.value != ".*":
                assert any(matcher.accepts(name) for name in shipped), (title, matcher.value)


@pytest.mark.parametrize("name", presets.names())
def test_every_pipeline_of_a_preset_is_on_its_dashboard(name: str) -> None:
    texts = [text for _, text in queries(GRAFANA / f"{name}.yaml")]
    equal = {m.value for text in texts for m in matchers_of_pipelines(text) if m.operator == "="}
    assert equal == {pipeline.name for pipeline in presets.pipelines(name)}


def matchers_of_pipelines(text: str) -> list[Matcher]:
    found = re.findall(r'pipeline(=~?)"([^"]*)"', text)
    return [Selector.parse(f'{{pipeline{operator}"{value}"}}').matchers[0] for operator, value in found]


def test_what_is_looked_at_names_something() -> None:
    assert all(named(text).metrics for file in [*SOURCES, *RULES] for _, text in expressions(file))
