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


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (90, "90s"), (300, "5m"), (7200, "2h")])
def test_durations_are_those_of_promql(seconds: int, text: str) -> None:
    assert texts.duration(seconds) == text
