"""The answer to a query: what is chosen, and that it is valid JSON."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from openanomaly.core.anomalies.board import Board
from openanomaly.core.anomalies.query import Query
from openanomaly.core.anomalies.report import gauges, report
from openanomaly.core.pipelines.selector import Selector
from openanomaly.errors import MalformedRequestError
from scores import NOW_MS
from unit.core.anomalies.boards import END, OPEN, START, STEP_MS, board, hosts, names, series, shown, step

FLEET = hosts(4)


@pytest.fixture
def found() -> Board:
    """host-0 is odd, host-1 was, in two pipelines; and one series of another group."""
    return board(
        step(FLEET, 0, {0: START, 1: START}),
        step(FLEET, 1, {0: OPEN, 1: END}),
        step([series("up", instance="db")], 1, {0: START}, pipeline="other"),
    )


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["db", "host-0", "host-1"]),
        ({"limit": 1}, ["db"]),
        ({"limit": 0}, []),
        ({"state": "open"}, ["db", "host-0"]),
        ({"state": "ended"}, ["host-1"]),
        ({"pipeline": "other"}, ["db"]),
        ({"pipeline": "silent"}, []),
        ({"group": "node"}, ["host-0", "host-1"]),
        ({"group": "up"}, ["db"]),
        ({"match": Selector.parse('{instance=~"host-.*"}')}, ["host-0", "host-1"]),
        ({"match": Selector.parse("up"), "state": "ended"}, []),
        ({"since_ms": NOW_MS + STEP_MS}, ["db", "host-0", "host-1"]),
        ({"since_ms": NOW_MS + STEP_MS + 1}, []),
    ],
)
def test_a_query_chooses(found: Board, query: dict[str, Any], expected: list[str]) -> None:
    answer = shown(found, **query)
    assert names(answer) == expected
    if "limit" not in query:
        assert answer["summary"]["matching"] == len(expected)


def test_as_many_steps_as_asked_for_are_given(found: Board) -> None:
    times = [[a["steps"]["time_ms"] for a in shown(found, steps=n)["anomalies"][1:]] for n in (0, 1, 9)]
    both = [NOW_MS, NOW_MS + STEP_MS]
    assert times == [[[], []], [both[1:], both[1:]], [both, both]]


def bad_numbers(value: float) -> Board:
    frame = step(FLEET, 0, {0: START})
    expected = np.full((4, 3), value)
    score = np.full(4, np.float32(value)) if not np.isnan(value) else frame.score
    return board(replace(frame, value=np.full(4, value), expected=expected, score=score))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_null(value: float) -> None:
    answer = report(bad_numbers(value), Query())
    text = json.dumps(answer, allow_nan=False)
    [anomaly] = json.loads(text)["anomalies"]
    assert anomaly["value"] is None
    assert anomaly["steps"]["lower"] == [None]


@pytest.mark.parametrize("value", [0.0, -0.0, 5e-324, 1.7976931348623157e308, -123456.7891, 1 / 3])
def test_numbers_keep_seven_digits_and_those_of_charts_five(value: float) -> None:
    with np.errstate(over="ignore"):
        [anomaly] = json.loads(json.dumps(report(bad_numbers(value), Query()), allow_nan=False))["anomalies"]
    assert anomaly["value"] == pytest.approx(value, rel=1e-6, abs=0)
    assert anomaly["steps"]["value"] == [pytest.approx(value, rel=1e-4, abs=0)]


def test_an_empty_board_has_an_answer() -> None:
    answer = report(board(), Query())
    json.dumps(answer, allow_nan=False)
    assert (answer["anomalies"], answer["groups"], answer["summary"]["seen_ms"]) == ([], [], None)
    assert answer["forecasts"] == {"series": 0, "without": 0, "share_without": None}


def test_groups_beyond_a_number_are_counted() -> None:
    answer = shown(board(step([series("up", job=f"job-{i:03}") for i in range(130)], 0, {129: START})))
    assert (len(answer["groups"]), answer["groups_left_out"]) == (100, 30)
    assert answer["groups"][0]["name"] == "job-129"


def test_our_metrics_count_the_same(found: Board) -> None:
    expected = {"series": 5, "series_anomalous": 2, "series_untracked": 0, "series_without_forecast": 0}
    assert gauges(found) == expected


def test_a_reason_of_a_newer_release_is_shown_as_its_number() -> None:
    frame = step(FLEET, 0, {0: START})
    newer = replace(frame, reason=np.full(4, 200, np.uint8))
    assert shown(board(newer))["anomalies"][0]["reason"] == {"code": "200", "text": None}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"limit": "-1"}, "parameter limit: '-1' is no number from 0 to 500"),
        ({"limit": "501"}, "parameter limit: '501' is no number from 0 to 500"),
        ({"limit": "1e3"}, "parameter limit: '1e3'"),
        ({"limit": "٣"}, "parameter limit: '٣'"),
        ({"limit": ""}, "parameter limit: ''"),
        ({"steps": "1001"}, "parameter steps: '1001'"),
        ({"limit": "200", "steps": "61"}, "parameter steps: 200 x 61 are more than 12000 steps; ask for 60"),
        ({"state": "closed"}, "parameter state: 'closed' is none of open, ended, all"),
        ({"pipeline": "x"}, "parameter pipeline: there is no 'x'; they are a, b"),
        ({"match": "{"}, "parameter match: cannot parse selector '{'"),
        ({"match": '{a=~"("}'}, "parameter match: cannot parse the regular expression"),
        ({"since": "yesterday"}, "parameter since: 'yesterday' is no time"),
        ({"since": "9" * 30}, "parameter since: "),
        ({"matcher": "up"}, "parameter matcher: there is none of this name; they are pipeline, group"),
    ],
)
def test_a_wrong_parameter_is_named(given: dict[str, str], message: str) -> None:
    with pytest.raises(MalformedRequestError) as found:
        Query.parse(given, ["a", "b"])
    assert message in str(found.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1700000000000", 1_700_000_000_000),
        ("-1", -1),
        ("2023-11-14T22:13:20Z", 1_700_000_000_000),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000_000),
        ("2023-11-14T22:13:20", 1_700_000_000_000),
    ],
)
def test_a_time_is_milliseconds_or_iso_8601(text: str, expected: int) -> None:
    assert Query.parse({"since": text}, []).since_ms == expected
