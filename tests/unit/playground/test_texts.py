"""Definitions and rules that people take away from the playground."""

import pytest
import yaml

from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.errors import ConfigError
from openanomaly.playground import texts

TEXT = "name: shop\nselector: up\nscore: {direction: below}\n"


def test_a_definition_that_is_written_is_the_one_that_is_read() -> None:
    pipeline = Pipeline.model_validate(
        {
            "name": "shop",
            "query": 'sum by (job) (rate(http_requests_total{job=~"a|b"}[5m]))',
            "score": {"data_range": ["-inf", 5], "mute": [{"days": ["sat"], "timezone": "Europe/Berlin"}]},
            "labels": {"team": "søk"},
        }
    )
    assert texts.parsed(texts.written(pipeline)) == pipeline


def test_what_is_by_default_is_not_written() -> None:
    assert yaml.safe_load(texts.written(Pipeline(name="x"))) == {"name": "x"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: shop\nstep: 60\n", "line 2"),
        ("name: shop\nscore: {tolerance: 11}\n", "tolerance"),
        ("name: [", "line"),
        ("", "expected one pipeline, found 0"),
        ("pipelines: [{name: a}, {name: b}]", "expected one pipeline, found 2"),
        ("- 1", "expected"),
        ("name: &a x\nselector: *a\n", "aliases"),
        ("name: " + "x" * 100_000, "at most 100,000"),
    ],
)
def test_a_text_that_defines_nothing_says_where(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        texts.parsed(text)


def test_an_option_is_put_into_the_text() -> None:
    text = texts.put(TEXT, ("score", "tolerance"), 0.4)
    assert texts.parsed(text).score.tolerance == 0.4
    assert texts.parsed(text).score.direction == "below"
    assert yaml.safe_load(texts.put(text, ("score", "tolerance"), 0.2)) == yaml.safe_load(TEXT)


def test_an_option_that_cannot_be_is_put_there_all_the_same_and_said_of_the_text() -> None:
    text = texts.put(TEXT, ("score", "tolerance"), 11)
    with pytest.raises(ConfigError, match="tolerance"):
        texts.parsed(text)


def test_a_text_that_defines_nothing_stays() -> None:
    assert texts.put("name: [", ("step_s",), 60) == "name: ["
    assert texts.ask("name: [", "up") == "name: ["


def test_what_is_asked_for_is_a_selector_or_a_query() -> None:
    asked = texts.ask(TEXT, 'sum(rate(x_total{job="a"}[5m]))')
    assert texts.parsed(asked).query == 'sum(rate(x_total{job="a"}[5m]))'
    again = texts.parsed(texts.ask(asked, 'x{job="a"}'))
    assert (again.selector, again.query) == ('x{job="a"}', None)
    assert texts.parsed(texts.ask(asked, "")).query is None
    assert again.score.direction == "below"


def test_settings_hold_the_definition() -> None:
    assert yaml.safe_load(texts.settings(TEXT)) == {"pipelines": [yaml.safe_load(TEXT)]}


@pytest.mark.parametrize("name", ["web", "web:", "a.b-c_1"])
@pytest.mark.parametrize("step_s", [60, 300, 900])
def test_rules_are_yaml_that_sees_each_score(name: str, step_s: int) -> None:
    pipeline = Pipeline(name=name, step_s=step_s)
    text = texts.rules(pipeline, 1.5, 600, title="a\x07\u2028b: #c", days=7, series=2, fired=3)
    (group,) = yaml.safe_load(text)["groups"]
    assert group["name"] == f"openanomaly-{name}"
    series, of_group = group["rules"]
    window = {60: None, 300: "[10m]", 900: "[30m]"}[step_s]
    for rule in (series, of_group):
        assert (f"}}{window})" in rule["expr"]) if window else ("last_over_time" not in rule["expr"])
        assert f'pipeline="{name}"' in rule["expr"]
    assert series["for"] == "10m"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("up", "`up`"), ("a`b", "``a`b``"), ("`a`", "`` `a` ``"), ("a\n b", "`a b`"), ("", "")],
)
def test_text_of_others_is_no_markdown(text: str, shown: str) -> None:
    assert texts.plain(text) == shown


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (90, "90s"), (300, "5m"), (7200, "2h")])
def test_durations_are_those_of_promql(seconds: int, text: str) -> None:
    assert texts.duration(seconds) == text
