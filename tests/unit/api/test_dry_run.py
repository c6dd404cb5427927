"""What a pipeline would watch and cost, before anybody runs it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from openanomaly.api.series import AdminCounter, Counted, DatabaseCounter
from openanomaly.core.frames import ScoreFrame
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.ports.tsdb_client import Samples, Written
from openanomaly.errors import TsdbUnavailableError
from openanomaly.settings import ApiSettings
from unit.api.calls import PIPELINES, Api, Knows

DRY_RUN = "/api/v1/dry-run"


def test_a_definition_costs_what_its_columns_are_for_each_series(tmp_path: Path) -> None:
    api = Api(tmp_path, Knows(96_000))
    answer = api("POST", DRY_RUN, json={"pipeline": {"name": "a", "step_s": 60}})
    assert answer.status_code == 200
    found = answer.json()
    assert found["series"] == {"count": 96_000, "of": "series of a test", "note": None}
    memory = found["memory_bytes"]
    assert memory["ring"] >= (512 + 32) * 4
    assert memory["bands"] >= 64 * 5 * 2
    assert memory["per_series"] == memory["row_state"] + memory["ring"] + memory["bands"]
    assert memory["total"] == 96_000 * memory["per_series"]
    rates = found["rates"]
    assert (rates["forecasts_per_s"], rates["samples_written_per_s"]) == (100.0, 1600.0)
    assert rates["inference_cores"] == 100 / 1800
    assert "bench/README.md" in rates["measured"]
    assert api("GET", PIPELINES).json()["items"] == []


def test_a_stored_pipeline_is_named_and_shares_with_others(tmp_path: Path) -> None:
    api = Api(tmp_path, Knows(3))
    api("POST", PIPELINES, json={"name": "a"})
    api("POST", PIPELINES, json={"name": "b", "selector": "up"})
    api("POST", PIPELINES, json={"name": "c", "step_s": 15})
    found = api("POST", DRY_RUN, json={"name": "b"}).json()
    assert found["pipeline"]["selector"] == "up"
    assert found["shared_with"] == ["a"]
    assert 0 < found["memory_bytes"]["shared"] < found["memory_bytes"]["per_series"]


def test_where_nobody_can_be_asked_the_reason_is_told(tmp_path: Path) -> None:
    found = Api(tmp_path)("POST", DRY_RUN, json={"pipeline": {"name": "a"}}).json()
    assert found["series"]["count"] is None
    assert "set api.admin_url or pull.url" in found["series"]["note"]
    assert (found["rates"], found["memory_bytes"]["total"]) == (None, None)


@pytest.mark.parametrize(
    ("value", "status", "pointer"),
    [
        ({"name": "none"}, 404, None),
        ({}, 422, ""),
        ([], 422, ""),
        ({"name": "a", "pipeline": {"name": "a"}}, 422, ""),
        ({"name": 3}, 422, "/name"),
        ({"pipeline": {"name": "a", "step_s": 0}}, 422, "/pipeline/step_s"),
        ({"pipeline": {"name": "a"}, "more": 1}, 422, "/more"),
    ],
)
def test_what_is_meant_has_to_be_said(tmp_path: Path, value: Any, status: int, pointer: str | None) -> None:
    answer = Api(tmp_path)("POST", DRY_RUN, json=value)
    assert answer.status_code == status
    if pointer is not None:
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def asked(answer: dict[str, int] | None, pipeline: Pipeline, **settings: str) -> tuple[Counted, list[Any]]:
    """What an admin API that gives `answer` makes of it, and what it was asked."""
    seen: list[Any] = []

    async def series(request: web.Request) -> web.Response:
        seen.append((request.query["match"], request.headers.get("Authorization")))
        if answer is None:
            raise web.HTTPNotFound(text="this process keeps no windows; ask a window worker\n")
        return web.json_response(answer)

    async def run() -> Counted:
        app = web.Application()
        app.router.add_get("/api/v1/admin/series/count", series)
        async with TestServer(app) as server:
            counter = AdminCounter(
                ApiSettings.model_validate({"admin_url": str(server.make_url("/")), **settings})
            )
            try:
                return await counter.count(pipeline)
            finally:
                await counter.close()

    return asyncio.run(run()), seen


def test_a_running_process_is_asked_with_its_token() -> None:
    answer = {"series": 7, "partitions": 4, "partitions_of_all": 4}
    found, seen = asked(answer, Pipeline(name="a", selector='up{a="b c"}'), admin_token="sesame")
    assert (found.count, found.note) == (7, None)
    assert seen == [('up{a="b c"}', "Bearer sesame")]


def test_that_it_has_not_all_partitions_is_told() -> None:
    found, _ = asked({"series": 7, "partitions": 1, "partitions_of_all": 4}, Pipeline(name="a"))
    assert found.count == 7
    assert "1 of 4 partitions" in (found.note or "")


def test_why_it_has_no_answer_is_told() -> None:
    found, _ = asked(None, Pipeline(name="a"))
    assert found.count is None
    assert "404 this process keeps no windows" in (found.note or "")
    found, seen = asked({}, Pipeline(name="a", query="sum(up)"))
    assert (found.count, seen) == (None, [])
    assert "set pull.url" in (found.note or "")


class Database:
    """Answers instant queries."""

    shown = "http://tsdb"

    def __init__(self, answer: Samples | Exception) -> None:
        self.answer, self.asked = answer, list[tuple[str, int]]()

    def instant_query(self, query: str, at_ms: int) -> Samples:
        self.asked.append((query, at_ms))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def range_query(self, query: str, start_ms: int, end_ms: int, step_ms: int) -> Samples:
        raise NotImplementedError

    def raw_query(self, selector: str, start_ms: int, end_ms: int) -> Samples:
        raise NotImplementedError

    def write(self, frames: Sequence[ScoreFrame]) -> Written:
        raise NotImplementedError

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("pipeline", "query"),
    [
        (
            Pipeline(name="a", selector='up{job=~"a|b", x!="\\"\\n\\\\"}'),
            'count({__name__=~".+",__name__="up",job=~"a|b",x!="\\"\\n\\\\"} unless '
            '{for!="",__name__=~"anomaly_.*|yhat|yhat_lower|yhat_upper|y"})',
        ),
        (Pipeline(name="a", query="sum by (job) (up)"), "count(sum by (job) (up))"),
    ],
)
def test_a_database_counts(pipeline: Pipeline, query: str) -> None:
    one = Samples([b""], np.zeros(1, np.uint32), np.array([5]), np.array([42.0]))
    database = Database(one)
    found = asyncio.run(DatabaseCounter(database, clock=lambda: 5.0).count(pipeline))
    assert (found.count, found.of, found.note) == (42, "series in http://tsdb now", None)
    assert database.asked == [(query, 5000)]


def test_a_database_without_any_has_none_and_one_that_is_away_is_told() -> None:
    assert asyncio.run(DatabaseCounter(Database(Samples.none())).count(Pipeline(name="a"))).count == 0
    away = Database(TsdbUnavailableError("http://tsdb cannot be reached"))
    found = asyncio.run(DatabaseCounter(away).count(Pipeline(name="a")))
    assert (found.count, found.note) == (None, "http://tsdb cannot be reached")
