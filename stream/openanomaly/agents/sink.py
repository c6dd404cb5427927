"""The sink role: scores in, remote-write requests out.

One Faust agent reads `.scores` and encodes frames; one task writes them, in their order, one
request after another. A record is released once the target has taken its scores, or has refused
them for good and they were set aside. While the target is away nothing is released and nothing is
lost: a bounded number of scores waits here, the rest on the broker.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openanomaly.adapters.remote_write.client import RemoteWriteClient
from openanomaly.adapters.remote_write.delivery import Delivery, Refusal
from openanomaly.adapters.remote_write.encode import Encoded, ScoreEncoder
from openanomaly.agents.events import noticed
from openanomaly.agents.records import Records
from openanomaly.broker.dead_letter import DeadLetters
from openanomaly.broker.faust_app import App, declare
from openanomaly.broker.notes import Origin
from openanomaly.broker.topics import Topics
from openanomaly.core.frames import ScoreFrame
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.errors import RejectedError
from openanomaly.settings import SinkSettings
from openanomaly.settings.clients import target_of
from openanomaly.telemetry import SinkMetrics

log = logging.getLogger(__name__)

_WAITING_BATCHES = 4
_FLUSH_S = 3.0


@dataclass(frozen=True, slots=True)
class _Held:
    """A record on its way to the target."""

    origin: Origin
    frame: ScoreFrame
    encoded: Encoded
    came_s: float


class SinkWorker:
    """Writes scores to the target, or counts them where there is none."""

    def __init__(
        self,
        app: App,
        settings: SinkSettings,
        topics: Topics,
        metrics: SinkMetrics,
        dead_letters: DeadLetters,
        pipelines: Sequence[Pipeline] = (),
    ) -> None:
        self.app = app
        self._settings = settings
        self._metrics = metrics
        self._dead_letters = dead_letters
        self._encoder = ScoreEncoder(settings.series, settings.external_labels, pipelines)
        self._waiting: deque[_Held] = deque()
        self._waiting_samples = 0
        self._writing = 0
        self._came = asyncio.Event()
        self._left = asyncio.Event()
        self._is_stopping = False
        scores = declare(app, topics.scores)
        self._records = Records(app, topics.scores.name, dead_letters, self._take, metrics.rejected)
        app.agent(scores, name="openanomaly.sink.scores")(self._records.read)
        self._client: RemoteWriteClient | None = None
        if (target := target_of(settings)) is not None:
            self._client = RemoteWriteClient(target, self._observe)
            self._delivery = Delivery(self._client.send, settings.batch_samples)
            app.task(self._write)
        metrics.is_up.set_function(lambda: float(self.is_up))

    @property
    def is_up(self) -> bool:
        """Whether the target took the last request, or there is none to ask."""
        return self._client is None or self._client.is_up

    def status(self) -> dict[str, Any]:
        return {
            "up": self.is_up,
            "error": self._client.error if self._client is not None else None,
            "waiting_samples": self._waiting_samples,
        }

    def prepare(self, pipelines: Sequence[Pipeline]) -> Callable[[], None]:
        """What gives scores the labels and outputs of other pipelines."""
        return partial(self._encoder.redefine, pipelines)

    async def stop(self) -> None:
        """Write what waits, unless the target is away: its records are not released and come again."""
        self._is_stopping = True
        self._came.set()
        end_s = time.monotonic() + _FLUSH_S
        while (self._waiting or self._writing) and self.is_up and time.monotonic() < end_s:
            await noticed(self._left, 0.1)

    # -- scores in -----------------------------------------------------------------------------

    async def _take(self, origin: Origin, value: bytes) -> None:
        frame = ScoreFrame.decode(value)
        encoded = self._encoder.encode(frame)
        self._metrics.scores.inc(len(frame.row))
        if self._client is None:
            self._drop("no_target", len(frame.row))
            self._records.done(origin)
            return
        came_s = time.monotonic()
        # A census, or steps that are not for the target. It must not wait: nothing bounds how many there are.
        if not len(encoded):
            await self._settle_one(_Held(origin, frame, encoded, came_s), 0, ())
            return
        most = _WAITING_BATCHES * self._settings.batch_samples
        while self._is_stopping or (self._waiting and self._waiting_samples + len(encoded) > most):
            await noticed(self._left)
        self._waiting.append(_Held(origin, frame, encoded, came_s))
        self._waiting_samples += len(encoded)
        self._came.set()

    # -- requests out --------------------------------------------------------------------------

    async def _write(self) -> None:
        assert self._client is not None
        try:
            while True:
                batch = await self._collect()
                self._writing = len(batch)
                refused = await self._delivery.deliver([p for held in batch for p in held.encoded.parts])
                await self._settle(batch, refused)
                self._writing = 0
                self._left.set()
        finally:
            await self._client.close()

    async def _collect(self) -> list[_Held]:
        """The records of the next batch: a full one, or all there is after a moment's wait."""
        while not self._waiting:
            await noticed(self._came)
        end_s = time.monotonic() + self._settings.batch_wait_s
        size = self._settings.batch_samples
        while self._waiting_samples < size and not self._is_stopping:
            if (wait_s := end_s - time.monotonic()) <= 0:
                break
            await noticed(self._came, wait_s)
        batch = [self._waiting.popleft()]
        samples = len(batch[0].encoded)
        while self._waiting and samples + len(self._waiting[0].encoded) <= size:
            batch.append(self._waiting.popleft())
            samples += len(batch[-1].encoded)
        self._waiting_samples -= samples
        self._left.set()
        self._metrics.batch_samples.observe(samples)
        now_s = time.monotonic()
        for held in batch:
            self._metrics.queue_wait_seconds.observe(now_s - held.came_s)
        return batch

    async def _settle(self, batch: Sequence[_Held], refused: Sequence[Refusal]) -> None:
        """Count and release records whose scores were taken, or refused for good."""
        start = 0
        for held in batch:
            try:
                await self._settle_one(held, start, refused)
            except Exception as exc:
                await self._dead_letters.note(exc, [(held.origin, held.frame.encode(compress=True))])
                raise
            start += len(held.encoded)

    async def _settle_one(self, held: _Held, start: int, refused: Sequence[Refusal]) -> None:
        stop = start + len(held.encoded)
        mine = [r for r in refused if r.start < stop and r.stop > start]
        gone = np.zeros(len(held.frame.row), bool)
        for refusal in mine:
            gone[held.encoded.row[max(refusal.start - start, 0) : refusal.stop - start]] = True
        if mine:
            rows = np.flatnonzero(gone)
            await self._records.set_aside(
                held.origin,
                held.frame.take(rows).encode(compress=True),
                RejectedError(f"{rows.size} of {gone.size} scores: {mine[0].words}"),
            )
        self._count(held, gone, stop - start - sum(_overlap(r, start, stop) for r in mine))
        if not gone.all():
            self._metrics.latency.observe(time.time() - held.frame.closed_ms / 1000)
        self._records.done(held.origin)

    def _count(self, held: _Held, gone: NDArray[np.bool_], samples: int) -> None:
        """What came in is written, or dropped by reason."""
        tried = np.zeros(gone.size, bool)
        tried[held.encoded.row] = True
        self._metrics.written.inc(int((tried & ~gone).sum()))
        self._metrics.samples.inc(samples)
        skipped = held.encoded.skipped
        for reason, scores in skipped.items():
            self._drop(reason, scores)
        self._drop("rejected", int(gone.sum()))
        self._drop("unknown", int((~tried).sum()) - sum(skipped.values()))

    def _drop(self, reason: str, scores: int) -> None:
        if scores:
            self._metrics.dropped.labels(reason).inc(scores)

    def _observe(self, code: str, seconds: float) -> None:
        self._metrics.requests.labels(code).inc()
        self._metrics.request_seconds.observe(seconds)


def create_sink(
    app: App,
    settings: SinkSettings,
    topics: Topics,
    metrics: SinkMetrics,
    dead_letters: DeadLetters,
    pipelines: Sequence[Pipeline] = (),
) -> SinkWorker:
    """The sink role of a process; its tasks run while `app` does.

    Raises:
        ConfigError: credentials or certificates of the target cannot be used.
    """
    return SinkWorker(app, settings, topics, metrics, dead_letters, pipelines)


def check_target(settings: SinkSettings) -> str | None:
    """Where scores go, without secrets; None if nowhere.

    Raises:
        ConfigError: credentials or certificates of the target cannot be used.
    """
    target = target_of(settings)
    return None if target is None else RemoteWriteClient(target).shown


def _overlap(refusal: Refusal, start: int, stop: int) -> int:
    return min(refusal.stop, stop) - max(refusal.start, start)
