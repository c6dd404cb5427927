"""Scores of a pipeline over recorded data, told while they are made: NDJSON, a line for each piece."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from openanomaly.api.answers import problems
from openanomaly.api.bodies import PREVIEW, PREVIEW_EXAMPLE, body
from openanomaly.api.dry_run import chosen
from openanomaly.api.previews import AGAIN, SOURCES, Previews
from openanomaly.api.problems import ProblemError, problem_of
from openanomaly.api.recorded import wrong
from openanomaly.api.requests import accept, only, read_json
from openanomaly.core.ports.config_store import ConfigStore
from openanomaly.core.recording import RecordedSeries
from openanomaly.core.scoring.reason import Reason
from openanomaly.core.services.backtest import Backtest, ScoredSteps

log = logging.getLogger(__name__)

PATH = "/api/v1/preview"
MEDIA = "application/x-ndjson"
_CELLS = 1 << 14
"""Steps of all series between two looks at the clock and at whether the caller is still there."""
_LEAST_STEPS = 64
_DIGITS = 7
"""Of numbers that are told: those of float32."""


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
        previews.begin()  # before the body, which may be large, is in memory
        answer = None
        limit_s = settings.preview_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                answer = await begun(request)
            return answer
        except TimeoutError as exc:
            raise ProblemError(
                503, f"the samples are not there within api.preview_timeout_s={limit_s:g}", headers=AGAIN
            ) from exc
        finally:
            if answer is None:
                previews.end("failed")

    async def begun(request: Request) -> Response:
        value = await read_json(request, settings.preview_body_limit_bytes, "api.preview_body_limit_bytes")
        pipeline = await chosen(store, value, frozenset(SOURCES))
        previews.check_model(pipeline.model)
        if sum(name in value for name in SOURCES) != 1:
            raise wrong("", f"expected one of {', '.join(SOURCES)}")
        recording = await previews.recording(pipeline, value)
        engines = await previews.work(previews.engines, pipeline.model)
        chunk = max(_LEAST_STEPS, _CELLS // max(1, len(recording)))
        backtest = Backtest(pipeline.scored, engines, recording, chunk_steps=chunk)
        return _Stream(previews, backtest, recording, pipeline.score.alert_score)

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
        while (chunk := await self._previews.work(_next, chunks)) is not None:
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


def _next(chunks: Iterator[ScoredSteps]) -> ScoredSteps | None:
    return next(chunks, None)


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
            "labels": {name: value for name, value in recording[number].labels if name},
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
