"""The JSON Schema for editors: it is one, takes what the loader takes, and refuses what it can."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings

import pipelines
from openanomaly.cli import main
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.schema import DRAFT
from openanomaly.errors import ConfigError
from openanomaly.settings import Settings
from openanomaly.settings.sources import load

ROOT = Path(__file__).parents[2]


def schema(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["schema", *arguments]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> jsonschema.Draft202012Validator:
    """What an editor does with a settings file."""
    return jsonschema.Draft202012Validator(schema(capsys))


@pytest.mark.parametrize("arguments", [(), ("--of", "settings"), ("--of", "pipeline")])
def test_it_is_a_schema(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    found = schema(capsys, *arguments)
    assert found["$schema"] == DRAFT
    jsonschema.Draft202012Validator.check_schema(found)
    assert found["title"] == ("Pipeline" if "pipeline" in arguments else "Settings")


def test_every_option_has_a_title_a_description_and_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    found = schema(capsys)
    assert found["$defs"]["WindowSettings"]["properties"]["checkpoint_s"] == {
        "title": "Checkpoint S",
        "description": "Longest time between two checkpoints of a partition.",
        "default": 60,
        "anyOf": [
            {"type": "number", "minimum": 1, "maximum": 3600},
            {"type": "string", "pattern": r"^\s*[0-9]*\.?[0-9]+\s*(ms|s|m|h|d|w)?\s*$"},
        ],
    }
    for group in found["$defs"].values():
        for name, option in group["properties"].items():
            assert option["description"].endswith("."), name
            assert "\n" not in option["description"]


DOCUMENTED = [
    *re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL),
    *re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/moving-to-kafka.md").read_text(), re.DOTALL),
]
OURS = [text for text in DOCUMENTED if set(yaml.safe_load(text) or ()) & set(Settings.model_fields)]


@pytest.mark.parametrize(
    "text",
    [
        *OURS,
        "",
        "web:\nsink:\n  # nothing yet\n",
        "broker: {samples_retention_s: 6h, disk_limit_bytes: 20GiB, tls: yes}\n",
        "receiver: {coalesce_ms: 0.01s, body_limit_bytes: 2MiB, retry_after_s: '5'}\n",
        "sink: {headers: {X-Scope-OrgID: me}, password: x, username: me, url: null}\n",
        "pipelines:\n- {name: a, step_s: 15s, score: {data_range: [0, .inf], scale: [1, 2]}}\n",
        "pipelines: [{name: a, score: {data_range: ['-inf', 5], mute: }, labels: {team: x}}]\n",
        "pipelines: [{name: a, score: {mute: [{start: 22:30, end: 06:00}, {days: [mon]}]}}]\n",
        "store: {url: 'mongodb://host/db', poll_s: 500ms}\n",
    ],
)
def test_what_the_loader_takes_the_schema_takes(
    check: jsonschema.Draft202012Validator, tmp_path: Path, text: str
) -> None:
    (tmp_path / "a.yaml").write_text(text)
    load(str(tmp_path / "a.yaml"), {}, {})
    check.validate(yaml.safe_load(text) or {})


def test_an_example_is_documented() -> None:
    assert OURS


@pytest.mark.parametrize(
    "text",
    [
        "broker: {partition: 3}",
        "brokers: {}",
        "broker: {partitions: 5000}",
        "broker: {partitions: 1.5}",
        "broker: {partitions: yes}",
        "broker: {samples_retention_s: 59}",
        "broker: {samples_retention_s: 6 hours}",
        "broker: {disk_limit_bytes: 6h}",
        "broker: {tls: 5}",
        "inference: {device: tpu}",
        "log: {level: loud}",
        "sink: {series: [score]}",
        "sink: {headers: {a b: x}}",
        "sink: {external_labels: {pipeline: x}}",
        "sink: {external_labels: {0dc: x}}",
        "sink: http://a/write",
        "receiver: {replica_labels: a}",
        "receiver: {replica_labels: [__name__]}",
        "web: {auth: {bearer_token: ''}}",
        "pipelines: {name: a}",
        "pipelines: [{nome: a}]",
        "pipelines: [{name: a b}]",
        "pipelines: [{name: a, horizon: 0}]",
        "pipelines: [{name: a, transform: yes}]",
        "pipelines: [{name: a, labels: {for: x}}]",
        "pipelines: [{name: a, score: {tolerance: 11}}]",
        "pipelines: [{name: a, score: {alert_score: 10}}]",
        "pipelines: [{name: a, score: {channels: [loud]}}]",
        "pipelines: [{name: a, score: {channels: []}}]",
        "pipelines: [{name: a, score: {scale: [1]}}]",
        "pipelines: [{name: a, score: {data_range: [0, high]}}]",
        "pipelines: [{name: a, score: {mute: [{days: [sunday]}]}}]",
        "pipelines: [{name: a, score: {mute: [{start: noon}]}}]",
        "store: {poll_s: 0}",
    ],
)
def test_both_refuse_what_cannot_be(
    check: jsonschema.Draft202012Validator, tmp_path: Path, text: str
) -> None:
    assert not check.is_valid(yaml.safe_load(text))
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"a\.yaml, line 1: "):
        load(str(tmp_path / "a.yaml"), {}, {})


@settings(max_examples=100, deadline=None)
@given(pipeline=pipelines.pipelines())
def test_every_pipeline_fits_its_schema(pipeline: Pipeline) -> None:
    from openanomaly.core.schema import schema_of

    check = jsonschema.Draft202012Validator(schema_of(Pipeline))
    check.validate(pipeline.model_dump(mode="json"))
    check.validate(pipeline.model_dump(mode="json", exclude_unset=True))


def test_the_configuration_reference_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--format", "markdown"]) == 0
    made = capsys.readouterr().out
    assert (ROOT / "docs/configuration.md").read_text() == made, (
        "run: uv run openanomaly schema --format markdown > docs/configuration.md"
    )


def test_the_reference_has_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    main(["schema", "--format", "markdown"])
    said = capsys.readouterr().out
    assert "| `idle_ttl_s` | `21600` | number, at least 60 | A series without a sample" in said
    for group in (schema(capsys)["$defs"]).values():
        for name in group["properties"]:
            assert f"\n| `{name}` | " in said
