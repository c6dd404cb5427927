"""Scores of a pipeline over recorded data, told while they are made: NDJSON, a line for each piece."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from openanomaly.adapters.engines import make_engines
from openanomaly.adapters.recordings import database
from openanomaly.api.answers import problems
from openanomaly.api.bodies import PREVIEW, PREVIEW_EXAMPLE, body
from openanomaly.api.dry_run import chosen
from openanomaly.api.problems import ProblemError, problem_of
from openanomaly.api.recorded import of_columns, of_csv, wrong
from openanomaly.api.requests import accept, only, read_json
from openanomaly.core.pipelines.models import BUILT_IN
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.ports.config_store import ConfigStore
from openanomaly.core.ports.model_engine import ModelEngine
from openanomaly.core.ports.tsdb_client import TSDBClient
from openanomaly.core.recording import RecordedSeries
from openanomaly.core.scoring.reason import Reason
from openanomaly.core.services.backtest import Backtest, ScoredSteps
from openanomaly.settings import ApiSettings
from openanomaly.telemetry import ApiMetrics

log = logging.getLogger(__name__)

PATH = "/api/v1/preview"
MEDIA = "application/x-ndjson"
_SOURCES = ("columns", "csv", "range")
_CELLS = 1 << 14
"""Steps of all series between two looks at the clock and at whether the caller is still there."""
_LEAST_STEPS = 64
_DIGITS = 7
"""Of numbers that are told: those of float32."""


class Previews:
    """What previews share: engines, and the one thread in which all of them work."""

    def __init__(self, settings: ApiSettings, metrics: ApiMetrics, client: TSDBClient | None) -> None:
        self.settings, self.metrics, self.client = settings, metrics, client
        self._thread = ThreadPoolExecutor(1, "preview")  # engines are called from one at a time
        self._engines: dict[str, ModelEngine] = {}
        self._running = 0

    async def work(self, call: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    def begin(self) -> None:
        """Take a place; `end` gives it back.

        Raises:
            ProblemError: there is none; 503.
        """
        if self._running >= self.settings.previews:
            self.metrics.previews.labels("refused").inc()
            raise ProblemError(
                503,
                f"{self._running} previews are at work, at most api.previews={self.settings.previews} are",
                headers={"Retry-After": "5"},
            )
        self._running += 1

    def end(self, outcome: str) -> None:
        """Give a place back, and say why."""
        self._running -= 1
        self.metrics.previews.labels(outcome).inc()

    def engines(self, model: str) -> dict[str, ModelEngine]:
        """The engine of a model, by its name. Blocking: what is new is loaded."""
        if model not in self._engines:
            self._engines.update(make_engines([model]))
        return {model: self._engines[model]}

    def check_model(self, model: str) -> None:
        """See that callers load nothing but what the settings let them: a model may be any file."""
        known = ("auto", BUILT_IN, "statistical", *self.settings.preview_models)
        if model not in known:
            raise wrong(
                "/pipeline/model", f"a preview loads {', '.join(known)}; add it to api.preview_models", model
            )

    async def recording(self, pipeline: Pipeline, value: dict[str, Any]) -> list[RecordedSeries]:
        """The recorded series that a request has, or that the database has for it."""
        source = next(name for name in _SOURCES if name in value)
        if source == "columns":
            found = of_columns(value["columns"])
        elif source == "csv":
            found = of_csv(value["csv"])
        else:
            found = await self._of_range(pipeline, value["range"])
        samples = sum(len(series.timestamp_ms) for series in found)
        limits = self.settings
        for what, count, name in (
            ("series", len(found), "preview_series_limit"),
            ("samples", samples, "preview_samples_limit"),
        ):
            if count > (limit := getattr(limits, name)):
                raise ProblemError(413, f"{count} {what}, at most {limit}; raise api.{name}")
        return found

    async def _of_range(self, pipeline: Pipeline, value: Any) -> list[RecordedSeries]:
        if not isinstance(value, dict) or set(value) != {"start_ms", "end_ms"}:
            raise wrong("/range", "expected start_ms and end_ms")
        for name, moment in value.items():
            if isinstance(moment, bool) or not isinstance(moment, int) or not 0 <= moment < 1 << 42:
                raise wrong(f"/range/{name}", "expected ms since 1970", moment)
        start_ms, end_ms = value["start_ms"], value["end_ms"]
        if start_ms >= end_ms:
            raise wrong("/range/end_ms", f"expected more than start_ms={start_ms}", end_ms)
        steps = (end_ms - start_ms) // pipeline.step_ms
        if steps > self.settings.preview_samples_limit:
            raise wrong(
                "/range",
                f"{steps} steps of {pipeline.step_s:g} s; at most "
                f"api.preview_samples_limit={self.settings.preview_samples_limit}",
            )
        if self.client is None:
            raise wrong("/range", "pull.url is not set: there is no database to ask")
        if pipeline.query is not None:
            step_ms = pipeline.step_ms
            call = partial(database.query, self.client, pipeline.query, start_ms, end_ms, step_ms, log.info)
        else:
            call = partial(database.stored, self.client, pipeline.selector, start_ms, end_ms, log.info)
        return (await asyncio.to_thread(call)).series


def router(store: ConfigStore, previews: Previews) -> APIRouter:
    """The route of previews."""
    routes = APIRouter(tags=["definitions"])
    settings = previews.settings

    @routes.post(
        PATH,
        operation_id="previewPipeline",
        summary="Scores of a pipeline over recorded data",
        description="Recorded data are `columns`, `csv` as `openanomaly backtest` reads it, "
        "or the `range` of a database (`pull.url`). The answer is a line of JSON (the "
        "schema PreviewLine) for each piece: `progress`, `scores`, and at the end `summary`, or `problem` "
        "where it broke off. Who closes the connection ends the work.",
        openapi_extra=body(PREVIEW, PREVIEW_EXAMPLE),
        responses={
            200: {
                "description": "Lines of JSON; the last one is a summary or a problem.",
                "content": {MEDIA: {"schema": {"type": "string"}}},
            },
            **problems(400, 404, 406, 413, 415, 422, 503),
        },
        response_class=Response,
    )
    async def preview(request: Request) -> Response:
        accept(request, MEDIA)
        only(request)
        value = await read_json(request, settings.preview_body_limit_bytes, "api.preview_body_limit_bytes")
        pipeline = await chosen(store, value, frozenset(_SOURCES))
        previews.check_model(pipeline.model)
        if sum(name in value for name in _SOURCES) != 1:
            raise wrong("", f"expected one of {', '.join(_SOURCES)}")
        previews.begin()
        outcome = "failed"
        try:
            recording = await previews.recording(pipeline, value)
            engines = await previews.work(previews.engines, pipeline.model)
            chunk = max(_LEAST_STEPS, _CELLS // max(1, len(recording)))
            backtest = Backtest(pipeline.scored, engines, recording, chunk_steps=chunk)
            answer = _Stream(previews, backtest, recording, pipeline.score.alert_score)
            outcome = ""
            return answer
        finally:
            if outcome:
                previews.end(outcome)

    return routes


class _Stream(StreamingResponse):
    """The answer; it gives its place back however it ends."""

    def __init__(
        self, previews: Previews, backtest: Backtest, recording: list[RecordedSeries], alert_score: float
    ) -> None:
        self._previews, self._backtest, self._recording = previews, backtest, recording
        self._alert_score = alert_score
        self._outcome, self._has_ended = "left", False
        super().__init__(self._lines(), 200, {"Cache-Control": "no-store"}, MEDIA)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()

    async def _lines(self) -> AsyncIterator[bytes]:
        try:
            async for line in self._pieces():
                yield json.dumps(line, separators=(",", ":"), allow_nan=False).encode() + b"\n"
            self._outcome = "done"
        except Exception as exc:
            # The status is said already, so the last line says it.
            found = problem_of(exc)
            if found.status == 500:
                log.exception("a preview broke off")
            self._outcome = "failed"
            line = {"kind": "problem", "status": found.status, "detail": found.detail}
            yield json.dumps(line).encode() + b"\n"
        finally:
            self._end()  # before the caller sees the end, and comes again

    def _end(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._previews.end(self._outcome)

    async def _pieces(self) -> AsyncIterator[dict[str, Any]]:
        started = time.monotonic()
        limit_s = self._previews.settings.preview_timeout_s
        chunks, steps, scored, alarms = self._backtest.run(), 0, 0, 0
        total = self._backtest.samples
        yield {"kind": "progress", "samples_done": 0, "samples": total}
        while (chunk := await self._previews.work(next, chunks, None)) is not None:
            for line in _scores(chunk, self._recording):
                yield line
            steps += len(chunk.series)
            scored += int(np.isfinite(chunk.judged.score).sum())
            alarms += int((chunk.judged.score > self._alert_score).sum())
            yield {"kind": "progress", "samples_done": chunk.done, "samples": total}
            if time.monotonic() - started > limit_s and chunk.done < total:
                raise ProblemError(
                    503, f"not done within api.preview_timeout_s={limit_s:g}: {chunk.done} of {total} samples"
                )
        yield {
            "kind": "summary",
            "steps": steps,
            "scored": scored,
            "above_alert": alarms,
            "forecasts": self._backtest.forecasts.forecast,
            "forecasts_failed": dict(self._backtest.forecasts.failed),
            "unselected_series": self._backtest.counts["unselected_series"],
            "seconds": round(time.monotonic() - started, 3),
        }


def _scores(chunk: ScoredSteps, recording: list[RecordedSeries]) -> Iterator[dict[str, Any]]:
    """The steps of each series of a chunk, as columns."""
    series, first = np.unique(chunk.series, return_index=True)
    edges = [*first.tolist(), len(chunk.series)]
    for i, number in enumerate(series.tolist()):
        part = slice(edges[i], edges[i + 1])
        judged = chunk.judged
        yield {
            "kind": "scores",
            "series": number,
            "labels": dict(recording[number].labels),
            "end_ms": chunk.end_ms[part].tolist(),
            "value": _numbers(chunk.value[part]),
            "expected": _numbers(chunk.expected[part]),
            "lower": _numbers(judged.lower[part]),
            "upper": _numbers(judged.upper[part]),
            "score": _numbers(judged.score[part]),
            "reason": [Reason(reason).text for reason in judged.reason[part].tolist()],
        }


def _numbers(values: Any) -> list[float | None]:
    """JSON has no NaN, and nobody reads the digits that float32 has not."""
    return [float(f"{v:.{_DIGITS}g}") if np.isfinite(v) else None for v in values.tolist()]
