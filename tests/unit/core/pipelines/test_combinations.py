"""Options that exclude each other are refused; what only looks like it is taken."""

from typing import Any

import pytest
from pydantic import ValidationError

from openanomaly.core.pipelines.combinations import covers_the_week
from openanomaly.core.pipelines.mute import MuteWindow
from openanomaly.core.pipelines.pipeline import Pipeline


def pipeline(options: dict[str, Any]) -> Pipeline:
    return Pipeline.model_validate({"name": "a", **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_context": 600}, "min_context=600 is more than context=512"),
        ({"forecast_every": 65}, "forecast_every=65 is more than horizon=64"),
        (
            {"score": {"warmup": 241, "memory": 10, "block": 24}},
            "warmup=241 steps is more than memory=10 blocks of block=24",
        ),
        ({"score": {"channels": ["value", "froze"], "direction": "above"}}, "'froze' has no side"),
        ({"score": {"channels": ["quiet"], "direction": "below"}}, "'quiet' has no side"),
        ({"score": {"alert_score": 10}}, "less than 10"),
        ({"score": {"data_range": [float("-inf"), float("inf")]}}, "excludes no value"),
        ({"score": {"mute": [{"learn": False}]}}, "cover the whole week"),
        (
            {"transform": "rate", "score": {"data_range": [-5, -1]}},
            r"data_range=\[-5.0, -1.0\] excludes every value: a rate is never negative",
        ),
        (
            {"aggregate": "count", "score": {"direction": "below", "min_relative_deviation": 1.5}},
            "min_relative_deviation=1.5 is never exceeded with direction=below: a count falls",
        ),
        ({"selector": '{job="a", job="b"}'}, "selects nothing: job='a' and job='b' exclude each other"),
        ({"selector": 'up{__name__!="up"}'}, "selects nothing"),
        ({"selector": '{job="api-1", job=~"web-.*"}'}, "selects nothing: job='api-1' and job=~'web-"),
        ({"query": "up", "selector": "up"}, "query='up' and selector='up' exclude each other"),
        ({"query": "rate(x_total[5m])", "transform": "rate"}, "has to say rate"),
        ({"query": ""}, "the query is empty"),
        ({"query": " \n"}, "the query is empty"),
        ({"query": "sum(rate(x[5m])"}, r"ends before '\)'"),
        ({"query": "sum(rate(x[5m)])"}, r"has a '\)' at position 14 that closes nothing"),
        ({"query": "x)"}, r"has a '\)' at position 2"),
        ({"query": 'x{a="b}'}, 'has no closing " for the one at position 5'),
        ({"query": r"x{a='b\'}"}, "has no closing '"),
        ({"group_by": ["job", "pipeline"]}, "'pipeline' is a label that every group has"),
        ({"group_by": ["job", "zone", "job"]}, "'job' is there twice"),
        ({"group_by": ["__name__"]}, "__name__ is the name of a metric"),
        ({"group_by": ["a-b"]}, "'a-b' is no label name"),
        ({"group_by": [f"l{i}" for i in range(17)]}, "at most 16"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        pipeline(options)


@pytest.mark.parametrize(
    "options",
    [
        {"min_context": 512},
        {"forecast_every": 64},
        {"score": {"warmup": 240, "memory": 10, "block": 24}},
        {"score": {"direction": "above"}},
        {"score": {"alert_score": 9.9}},
        {"score": {"data_range": [float("-inf"), 0]}},
        {"score": {"mute": [{}]}},
        {"score": {"mute": [{"learn": False, "days": ["sat", "sun"]}]}},
        {"transform": "rate", "score": {"data_range": [0, 0.5]}},
        {"transform": "rate", "score": {"direction": "above", "min_relative_deviation": 3}},
        {"selector": '{job="a", job=~"a|b", instance!="x"}'},
        {"selector": '{job=~"a", job=~"b"}'},
        {"query": "sum by (job) (rate(x{a=~\"[(]\",b='}'}[5m] offset 1h)) # a (comment"},
        {"query": "x # it's fine\n + y"},
        {"query": "`a\\`"},
    ],
)
def test_what_can_be_is_taken(options: dict[str, Any]) -> None:
    assert pipeline(options).name == "a"


def test_a_definition_with_a_query_survives_being_shown_whole() -> None:
    asked = pipeline({"query": "sum(up)"})
    assert Pipeline.model_validate(asked.model_dump(mode="json")) == asked


@pytest.mark.parametrize(
    ("windows", "covers"),
    [
        ([], False),
        ([{}], True),
        ([{"days": ["mon", "tue", "wed", "thu", "fri", "sat"]}], False),
        ([{"start": "08:00", "end": "20:00"}, {"start": "20:00", "end": "08:00"}], True),
        ([{"start": "08:00", "end": "20:00"}, {"start": "20:01", "end": "08:00"}], False),
        (
            [
                {"start": "08:00", "end": "20:00"},
                {"start": "20:00", "end": "08:00", "timezone": "Europe/Berlin"},
            ],
            False,
        ),
        ([{"days": ["sun"], "start": "12:00"}, {"days": ["sun"], "end": "12:00"}], False),
        ([{"start": "12:00", "end": "12:00"}], True),
    ],
)
def test_whether_windows_leave_a_moment_of_the_week(windows: list[dict[str, Any]], covers: bool) -> None:
    assert covers_the_week([MuteWindow.model_validate(window) for window in windows]) is covers
