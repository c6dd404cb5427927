"""What previews share: limits, engines, one thread, and where recorded series come from."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from openanomaly.adapters.engines import make_engines
from openanomaly.adapters.recordings import database
from openanomaly.api.problems import RETRY_AFTER_S, ProblemError
from openanomaly.api.recorded import moment, of_columns, of_csv, wrong
from openanomaly.core.pipelines.models import BUILT_IN
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.ports.model_engine import ModelEngine
from openanomaly.core.ports.tsdb_client import TSDBClient
from openanomaly.core.recording import RecordedSeries
from openanomaly.errors import ConfigError
from openanomaly.settings import ApiSettings, InferenceSettings
from openanomaly.telemetry import ApiMetrics

log = logging.getLogger(__name__)
_T = TypeVar("_T")

SOURCES = ("columns", "csv", "range")
AGAIN = {"Retry-After": str(RETRY_AFTER_S)}


class Previews:
    """What previews share: engines, and the one thread in which all of them work."""

    def __init__(
        self,
        settings: ApiSettings,
        inference: InferenceSettings,
        metrics: ApiMetrics,
        client: TSDBClient | None,
    ) -> None:
        self.settings, self.metrics, self.client = settings, metrics, client
        self._inference = inference
        self._thread = ThreadPoolExecutor(1, "preview")  # engines are called from one at a time
        self._engines: dict[str, ModelEngine] = {}
        self._running = 0

    async def work(self, call: Callable[..., _T], *arguments: Any) -> _T:
        """What `call` gives, in the thread of previews."""
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
                headers=AGAIN,
            )
        self._running += 1

    def end(self, outcome: str) -> None:
        """Give a place back, and say why."""
        self._running -= 1
        self.metrics.previews.labels(outcome).inc()

    def engines(self, model: str) -> dict[str, ModelEngine]:
        """The engine of a model, by its name. Blocking: what is new is loaded."""
        if model not in self._engines:
            self._engines.update(
                make_engines(
                    [model], self._inference.threads, self._inference.device, self._inference.precision
                )
            )
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
        source = next(name for name in SOURCES if name in value)
        if source == "columns":
            found = await self.work(of_columns, value["columns"])
        elif source == "csv":
            found = await self.work(of_csv, value["csv"])
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
        start_ms, end_ms = (moment(f"/range/{name}", value[name]) for name in ("start_ms", "end_ms"))
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
        try:
            return (await asyncio.to_thread(call)).series
        except ConfigError as exc:
            raise wrong("/range", f"{self.client.shown} has no samples of that time") from exc
