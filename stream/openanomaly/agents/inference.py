"""The inference role: contexts that are due in, forecasts out.

One Faust agent reads `.due` and hands frames to the micro-batcher, which waits while too much is
queued. Answered frames go to `.forecasts`, to the partition their series came from; a due record is
released once its forecasts are confirmed, so a crash forecasts again and loses nothing. A frame
whose forecast failed is released too: its series keep the one they have and are due again.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from openanomaly.adapters.engines import make_engines
from openanomaly.agents.events import noticed
from openanomaly.agents.records import Records
from openanomaly.broker.dead_letter import DeadLetters
from openanomaly.broker.faust_app import App, Row, declare, publish
from openanomaly.broker.notes import Origin
from openanomaly.broker.topics import Topics
from openanomaly.core.frames import ROW_BYTES, DueFrame, ForecastFrame
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.ports.model_engine import ModelEngine
from openanomaly.core.scoring.levels import LEVELS
from openanomaly.core.services.due_queue import Request
from openanomaly.core.services.micro_batcher import BatchOptions, MicroBatcher
from openanomaly.errors import MalformedFrameError, RetryableError
from openanomaly.settings import InferenceSettings
from openanomaly.telemetry import InferenceMetrics

log = logging.getLogger(__name__)

_LEVEL = np.array(LEVELS, np.float32)
_UNSENT_FRAMES = 64
_SUSPECTS = 256
_FRAME_BYTES = 384 << 10
_RETRY_S = 1.0
_SLOW_BATCH_S = 600.0
_FLUSH_S = 3.0


class InferenceWorker:
    """Forecasts what windows ask for."""

    def __init__(
        self,
        app: App,
        settings: InferenceSettings,
        engines: Mapping[str, ModelEngine],
        topics: Topics,
        metrics: InferenceMetrics,
        dead_letters: DeadLetters,
    ) -> None:
        self.app = app
        self._settings = settings
        self._topics = topics
        self._metrics = metrics
        self._dead_letters = dead_letters
        self._batcher = MicroBatcher(
            engines,
            BatchOptions(settings.max_batch, settings.max_wait_s, settings.queue_limit, LEVELS),
            metrics,
            clock_s=time.monotonic,
            now_ms=_now_ms,
        )
        self._unanswered: dict[Origin, DueFrame] = {}
        self._unsent: list[tuple[Origin, Request]] = []
        self._sending = 0
        self._came = asyncio.Event()
        self._left = asyncio.Event()
        self._answer_came = asyncio.Event()
        self._is_waiting = False
        self._answered_s = time.monotonic()
        due = declare(app, topics.due)
        declare(app, topics.forecasts)
        self._records = Records(app, topics.due.name, dead_letters, self._take, metrics.rejected)
        app.agent(due, name="openanomaly.inference.due")(self._records.read)
        app.task(self._forecast)
        app.task(self._send)
        metrics.waiting.set_function(lambda: self._batcher.waiting)
        metrics.engines(self._batcher.engines)

    def is_held_up(self) -> bool:
        """Whether reading waits for an engine that is at work: a slow model is no stall."""
        return self._is_waiting and time.monotonic() - self._answered_s < _SLOW_BATCH_S

    @property
    def failing(self) -> str | None:
        """Why there are no forecasts, if an engine makes none at all."""
        return self._batcher.failing

    def status(self) -> dict[str, Any]:
        return {
            "models": {name: engine.name for name, engine in self._batcher.engines.items()},
            "devices": {model: engine.device for model, engine in self._batcher.engines.items()},
            "failing": self.failing,
            "waiting_rows": self._batcher.waiting,
            "unsent_frames": len(self._unsent) + self._sending,
        }

    def prepare(self, pipelines: Sequence[Pipeline]) -> Callable[[], None]:
        """What makes it forecast for other pipelines; takes as long as their models take to load.

        Raises:
            ConfigError: there is no such model, it cannot be read, or what it needs is not installed.
        """
        models = list(dict.fromkeys(pipeline.model for pipeline in pipelines if pipeline.query is None))
        engines = dict(self._batcher.engines)
        new = [model for model in models if model not in engines]
        engines |= make_engines(new, self._settings.threads, self._settings.device, self._settings.precision)
        return partial(self._use, {model: engines[model] for model in models})

    def _use(self, engines: Mapping[str, ModelEngine]) -> None:
        self._batcher.use(engines)
        self._metrics.engines(self._batcher.engines)

    async def stop(self) -> None:
        """Send what is forecast. What is not is due again after the restart: records are not released."""
        end_s = time.monotonic() + _FLUSH_S
        while (self._unsent or self._sending) and (wait_s := end_s - time.monotonic()) > 0:
            await noticed(self._left, wait_s)

    # -- due frames in -------------------------------------------------------------------------

    async def _take(self, origin: Origin, value: bytes) -> None:
        frame = self._decode(value)
        self._metrics.contexts.inc(len(frame.row))
        self._is_waiting, self._answered_s = True, time.monotonic()
        while len(self._unsent) >= _UNSENT_FRAMES:
            await noticed(self._left)
        # A record that was there when a batch crashed is tried alone, so that the next crash names
        # the one it is of, and the others are forecast.
        is_suspect = self._dead_letters.is_suspect(origin)
        if is_suspect:
            await self._all_answered()
        self._unanswered[origin] = frame
        await self._batcher.submit(frame, lambda request: self._answered(origin, request))
        if is_suspect:
            await self._all_answered()
        self._is_waiting = False

    async def _all_answered(self) -> None:
        while self._unanswered:
            await noticed(self._answer_came)

    def _decode(self, value: bytes) -> DueFrame:
        frame = DueFrame.decode(value)
        if frame.partition >= self._topics.forecasts.partitions:
            raise MalformedFrameError(
                f"asks for forecasts in partition {frame.partition} of {self._topics.forecasts.partitions}"
            )
        return frame

    # -- forecasts out -------------------------------------------------------------------------

    async def _forecast(self) -> None:
        """Run batches. What crashes one is not known, so all that waits for an answer is noted."""
        try:
            await self._batcher.run()
        except Exception as exc:
            suspects = list(self._unanswered.items())[:_SUSPECTS]
            await self._dead_letters.note(exc, [(origin, frame.encode()) for origin, frame in suspects])
            raise

    def _answered(self, origin: Origin, request: Request) -> None:
        self._answered_s = time.monotonic()
        self._unanswered.pop(origin, None)
        self._answer_came.set()
        if request.ok.any():
            self._unsent.append((origin, request))
            self._came.set()
        else:
            self._records.done(origin)

    async def _send(self) -> None:
        """Write all that is answered at once, then what was answered meanwhile."""
        while True:
            await noticed(self._came)
            batch, self._unsent = self._unsent, []
            self._sending = len(batch)
            records: list[Row] = []
            for origin, request in batch:
                records += await self._pack(origin, request)
            await self._publish(records)
            for origin, _ in batch:
                self._records.done(origin)
            self._sending = 0
            self._left.set()

    async def _pack(self, origin: Origin, request: Request) -> list[Row]:
        try:
            return list(_records(request))
        except Exception as exc:
            await self._dead_letters.note(exc, [(origin, request.frame.encode())])
            raise

    async def _publish(self, records: Sequence[Row]) -> None:
        while True:
            try:
                await publish(self.app, self._topics.forecasts.name, records)
                return
            except RetryableError as exc:
                # What was written of them is written again: windows take a forecast only once.
                log.warning("%d forecast frames wait: %s", len(records), exc)
                await asyncio.sleep(_RETRY_S)


def create_inference(
    app: App,
    settings: InferenceSettings,
    pipelines: Sequence[Pipeline],
    topics: Topics,
    metrics: InferenceMetrics,
) -> InferenceWorker:
    """The inference role of a process; its tasks run while `app` does."""
    engines = make_engines(
        [p.model for p in pipelines if p.query is None], settings.threads, settings.device, settings.precision
    )
    return InferenceWorker(app, settings, engines, topics, metrics, DeadLetters(app, topics))


def _records(request: Request) -> Iterator[Row]:
    """Forecast frames of the rows that have a forecast, each of a size the broker takes."""
    frame = request.frame
    rows = np.flatnonzero(request.ok)
    most = max(1, _FRAME_BYTES // (2 * _LEVEL.size * frame.horizon + ROW_BYTES))
    for i in range(0, rows.size, most):
        part = rows[i : i + most]
        forecasts = ForecastFrame.pack(frame.take(part), _LEVEL, request.forecast[part])
        yield frame.partition, None, forecasts.encode()


def _now_ms() -> int:
    return int(time.time() * 1000)
