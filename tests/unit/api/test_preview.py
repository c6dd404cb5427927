"""Previews: the scores that the stream would give, line by line, within their limits."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from openanomaly.adapters.engines import make_engines
from openanomaly.core.frames import ScoreFrame
from openanomaly.core.pipelines import document
from openanomaly.core.ports.tsdb_client import Samples
from openanomaly.core.recording import RecordedSeries
from openanomaly.core.series import canonical, encode_labels
from openanomaly.core.services.backtest import Backtest
from unit.api.calls import PIPELINES, Api

PREVIEW = "/api/v1/preview"
DEFINITION = {
    "name": "p",
    "model": "statistical",
    "context": 64,
    "min_context": 8,
    "horizon": 16,
    "score": {"block": 12, "warmup": 24},
}
TIMES = [1_795_600_000_000 // 60_000 * 60_000 + 60_000 * i for i in range(100)]
VALUES = [float(10 + i % 7) for i in range(99)] + [500.0]
COLUMNS = {
    "timestamp_ms": TIMES,
    "series": [
        {"labels": {"__name__": "up", "job": "a"}, "value": VALUES},
        {"labels": {"__name__": "up", "job": "b"}, "value": [None] * 50 + VALUES[:50]},
    ],
}


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


def scores(told: list[dict[str, Any]], series: int) -> list[float | None]:
    return [
        score
        for line in told
        if line["kind"] == "scores" and line["series"] == series
        for score in line["score"]
    ]


@pytest.fixture
def api(tmp_path: Path) -> Api:
    return Api(tmp_path)


def test_scores_are_those_of_a_backtest(api: Api) -> None:
    told = lines(api("POST", PREVIEW, json={"pipeline": DEFINITION, "columns": COLUMNS}))
    kinds = [line["kind"] for line in told]
    assert (kinds[0], kinds[-2], kinds[-1]) == ("progress", "progress", "summary")
    assert told[-2] == {"kind": "progress", "samples_done": 150, "samples": 150}

    pipeline = document.read(DEFINITION)
    value = np.array(VALUES)
    recording = [
        RecordedSeries(canonical({"__name__": "up", "job": "a"}.items()), np.array(TIMES), value),
        RecordedSeries(canonical({"__name__": "up", "job": "b"}.items()), np.array(TIMES[50:]), value[:50]),
    ]
    wanted: dict[int, list[float]] = {0: [], 1: []}
    for chunk in Backtest(pipeline, make_engines(["statistical"]), recording).run():
        for series in wanted:
            wanted[series] += chunk.judged.score[chunk.series == series].tolist()
    for series, numbers in wanted.items():
        found = [np.nan if score is None else score for score in scores(told, series)]
        np.testing.assert_allclose(found, numbers, rtol=1e-6)

    summary = told[-1]
    assert (summary["steps"], summary["unselected_series"], summary["forecasts_failed"]) == (150, 0, {})
    assert summary["above_alert"] == sum(score > 1 for numbers in wanted.values() for score in numbers)
    assert scores(told, 0)[-1] is not None
    assert scores(told, 0)[-1] > 1  # type: ignore[operator]
    (last,) = [line for line in told if line["kind"] == "scores" and line["series"] == 0][-1:]
    assert (last["labels"], last["value"][-1]) == ({"__name__": "up", "job": "a"}, 500.0)
    assert last["end_ms"][-1] == TIMES[-1] + 60_000
    assert last["reason"][-1] == "higher than it was in memory"


def test_csv_is_the_same_as_columns_and_a_stored_pipeline_as_its_definition(api: Api) -> None:
    api("POST", PIPELINES, json=DEFINITION)
    shifted = ["" if value is None else value for value in COLUMNS["series"][1]["value"]]  # type: ignore[index]
    text = 'timestamp_ms,"up{job=""a""}","up{job=""b""}"\n' + "".join(
        f"{time},{a},{b}\n" for time, a, b in zip(TIMES, VALUES, shifted, strict=True)
    )
    one = lines(api("POST", PREVIEW, json={"name": "p", "csv": text}))
    other = lines(api("POST", PREVIEW, json={"pipeline": DEFINITION, "columns": COLUMNS}))
    for line in (*one, *other):
        line.pop("seconds", None)
    assert one == other
    assert (len(scores(one, 0)), len(scores(one, 1))) == (100, 50)


def test_series_that_the_pipeline_does_not_watch_have_no_scores(api: Api) -> None:
    definition = {**DEFINITION, "selector": 'up{job="b"}'}
    told = lines(api("POST", PREVIEW, json={"pipeline": definition, "columns": COLUMNS}))
    assert {line["series"] for line in told if line["kind"] == "scores"} == {1}
    assert told[-1]["unselected_series"] == 1


class Database:
    """Has one series, stored and as the answer of any query."""

    shown = "http://tsdb"

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def _samples(self, times: list[int]) -> Samples:
        block = encode_labels(canonical({"__name__": "up"}.items()))
        n = len(times)
        return Samples([block], np.zeros(n, np.uint32), np.array(times), np.array(VALUES[:n]))

    def raw_query(self, selector: str, start_ms: int, end_ms: int) -> Samples:
        self.asked.append(("raw", selector))
        return self._samples([time for time in TIMES if start_ms <= time <= end_ms])

    def range_query(self, query: str, start_ms: int, end_ms: int, step_ms: int) -> Samples:
        self.asked.append(("range", query))
        return self._samples(list(range(start_ms, end_ms + 1, step_ms)))

    def instant_query(self, query: str, at_ms: int) -> Samples:
        raise NotImplementedError

    def write(self, frames: list[ScoreFrame]) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        pass


def test_a_range_is_read_from_the_database(tmp_path: Path) -> None:
    database = Database()
    api = Api(tmp_path, client=database)  # type: ignore[arg-type]
    span = {"start_ms": TIMES[0], "end_ms": TIMES[40]}
    told = lines(api("POST", PREVIEW, json={"pipeline": DEFINITION, "range": span}))
    assert told[-1]["steps"] == 40
    asked_query = {**DEFINITION, "query": "sum(up)"}
    told = lines(api("POST", PREVIEW, json={"pipeline": asked_query, "range": span}))
    assert told[-1]["steps"] == 40
    nothing = {"start_ms": 1, "end_ms": 60_000}
    answer = api("POST", PREVIEW, json={"pipeline": DEFINITION, "range": nothing})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["detail"] == "http://tsdb has no samples of that time"
    del database.asked[2:]
    assert database.asked == [("raw", document.read(DEFINITION).selector), ("range", "sum(up)")]


@pytest.mark.parametrize(
    ("change", "status", "pointer", "detail"),
    [
        ({"columns": {"timestamp_ms": [2, 1], "series": []}}, 422, "/columns/timestamp_ms/1", "more than 2"),
        ({"columns": {"timestamp_ms": [1], "series": []}}, 422, "/columns/series", "at least one"),
        (
            {"columns": {"timestamp_ms": [True], "series": []}},
            422,
            "/columns/timestamp_ms/0",
            "ms since 1970",
        ),
        (
            {"columns": {"timestamp_ms": [1], "series": [{"labels": {"a": "b"}, "value": ["1"]}]}},
            422,
            "/columns/series/0/value/0",
            "a number or null",
        ),
        (
            {"columns": {"timestamp_ms": [1], "series": [{"labels": {"a": "b"}, "value": []}]}},
            422,
            "/columns/series/0/value",
            "an array of 1",
        ),
        (
            {"columns": {"timestamp_ms": [1], "series": [{"labels": {"a": ""}, "value": [1]}]}},
            422,
            "/columns/series/0/labels",
            "label",
        ),
        ({"csv": "a,b\nc,d\n"}, 422, "/csv", "csv"),
        ({"range": {"start_ms": 1, "end_ms": 1}}, 422, "/range/end_ms", "more than start_ms=1"),
        ({"range": {"start_ms": 1, "end_ms": 100_000}}, 422, "/range", "pull.url is not set"),
        ({"range": {"start_ms": 1, "end_ms": 1 << 40}}, 422, "/range", "api.preview_samples_limit=100"),
        ({}, 422, "", "one of columns, csv, range"),
        ({"csv": "", "columns": {}}, 422, "", "one of columns, csv, range"),
        (
            {"csv": "", "pipeline": {**DEFINITION, "model": "./any/file.onnx"}},
            422,
            "/pipeline/model",
            "api.preview_models",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused_with_its_place(
    tmp_path: Path, change: dict[str, Any], status: int, pointer: str, detail: str
) -> None:
    api = Api(tmp_path, preview_samples_limit=100)
    answer = api("POST", PREVIEW, json={"pipeline": DEFINITION, **change})
    assert answer.status_code == status
    (error,) = answer.json()["errors"]
    assert error["pointer"] == pointer
    assert detail in error["detail"]


@pytest.mark.parametrize(
    ("limits", "detail"),
    [
        ({"preview_series_limit": 1}, "2 series, at most 1; raise api.preview_series_limit"),
        ({"preview_samples_limit": 149}, "150 samples, at most 149; raise api.preview_samples_limit"),
        ({"preview_body_limit_bytes": 1024}, "raise api.preview_body_limit_bytes"),
    ],
)
def test_too_much_is_refused_with_the_setting(tmp_path: Path, limits: dict[str, int], detail: str) -> None:
    answer = Api(tmp_path, **limits)("POST", PREVIEW, json={"pipeline": DEFINITION, "columns": COLUMNS})
    assert answer.status_code == 413
    assert detail in answer.json()["detail"]


def long(steps: int) -> dict[str, Any]:
    times = [60_000 * i for i in range(steps)]
    series = [{"labels": {"a": "b"}, "value": [float(i % 5) for i in range(steps)]}]
    return {"pipeline": DEFINITION, "columns": {"timestamp_ms": times, "series": series}}


def test_what_takes_too_long_breaks_off_and_says_so(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(monotonic=itertools.count(0, 1000).__next__)
    monkeypatch.setattr("openanomaly.api.preview.time", clock)
    told = lines(api("POST", PREVIEW, json=long(20_000)))
    assert [line["kind"] for line in told] == ["progress", "scores", "progress", "problem"]
    assert told[-1]["status"] == 503
    done = told[-2]["samples_done"]
    assert f"api.preview_timeout_s=120: {done} of 20000 samples" in told[-1]["detail"]


def test_samples_that_do_not_come_are_not_waited_for(tmp_path: Path) -> None:
    api = Api(tmp_path, preview_timeout_s=0.05)

    async def stalled() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    answer = api("POST", PREVIEW, content=stalled(), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert "api.preview_timeout_s=0.05" in answer.json()["detail"]
    assert 'openanomaly_api_previews_total{outcome="failed"} 1.0' in api("GET", "/metrics").text


def test_no_more_previews_than_are_let_and_a_place_is_given_back(api: Api) -> None:
    async def scenario() -> list[int]:
        calls = [api.call("POST", PREVIEW, json=long(20_000)) for _ in range(2)]
        answers = await asyncio.gather(*calls)
        refused = next(answer for answer in answers if answer.status_code == 503)
        assert refused.headers["Retry-After"] == "5"
        assert "api.previews=1" in refused.json()["detail"]
        after = await api.call("POST", PREVIEW, json=long(50))
        return [*sorted(answer.status_code for answer in answers), after.status_code]

    assert asyncio.run(scenario()) == [200, 503, 200]
    counted = api("GET", "/metrics").text
    assert 'openanomaly_api_previews_total{outcome="done"} 2.0' in counted
    assert 'openanomaly_api_previews_total{outcome="refused"} 1.0' in counted


def test_who_leaves_ends_the_work(api: Api) -> None:
    """The caller closes the connection after the first line."""
    body = json.dumps(long(200_000)).encode()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "path": PREVIEW,
        "raw_path": PREVIEW.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": [(b"host", b"localhost:1"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 5),
        "server": ("127.0.0.1", 1),
    }

    async def scenario() -> int:
        got: list[bytes] = []
        has_line, is_read = asyncio.Event(), False

        async def receive() -> dict[str, Any]:
            nonlocal is_read
            if not is_read:
                is_read = True
                return {"type": "http.request", "body": body, "more_body": False}
            await has_line.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                got.append(message["body"])
                has_line.set()

        await api._app(scope, receive, send)
        return sum(line.count(b'"summary"') for line in got)

    assert asyncio.run(scenario()) == 0
    assert 'openanomaly_api_previews_total{outcome="left"} 1.0' in api("GET", "/metrics").text
    assert api("POST", PREVIEW, json=long(50)).status_code == 200
