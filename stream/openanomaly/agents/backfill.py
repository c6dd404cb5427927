"""New series get their past from a database: read in bulk, aside, one query after the other.

Nothing waits for it. Steps that close before the past has come are judged without it; then it is put under
them, and the next step is judged as if the series had been watched all along (core/windows/backfill.py).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from openanomaly.agents.window_lane import Lane
from openanomaly.core.ports.tsdb_client import Samples, TSDBClient
from openanomaly.core.services.history import read_history
from openanomaly.core.windows.backfill import Newborn, Past, learn, remember
from openanomaly.errors import QueryRejectedError, RetryableError
from openanomaly.settings import BackfillSettings
from openanomaly.telemetry import BackfillMetrics

log = logging.getLogger(__name__)

_LOOK_S = 0.5
_BACKOFF_S = (1.0, 60.0)


class Backfill:
    """Gives the new series of a worker's lanes their past."""

    def __init__(
        self,
        client: TSDBClient,
        settings: BackfillSettings,
        lanes: Callable[[], Mapping[int, Lane]],
        metrics: BackfillMetrics,
    ) -> None:
        self._client = client
        self._settings = settings
        self._lanes = lanes
        self._metrics = metrics
        self._pause_s = _BACKOFF_S[0]
        self.error: str | None = None
        """Why the database is not asked now; None where it is."""
        metrics.waiting.set_function(self._waiting)

    def _waiting(self) -> float:
        return sum(
            block.newborn_rows for lane in self._lanes().values() for block in lane.partition.blocks.values()
        )

    async def run(self) -> None:
        """Look for new series, for ever."""
        log.info("new series get their past from %s", self._client.shown)
        while True:
            await asyncio.sleep(_LOOK_S)
            for lane in list(self._lanes().values()):
                if lane.is_replaying:
                    continue  # who is new there may be old, by the end of it
                for block in list(lane.partition.blocks.values()):
                    while (rows := block.take_newborn(self._settings.series_per_query)).size:
                        newborn = Newborn.of(block, rows)
                        if len(newborn):
                            await self._give(lane, newborn)

    async def _give(self, lane: Lane, newborn: Newborn) -> None:
        started_s = time.monotonic()
        try:
            past = await self._learn(newborn)
        except QueryRejectedError as exc:
            self._metrics.series.labels("refused").inc(len(newborn))
            log.warning("%d new series have no past: %s", len(newborn), exc)
            return
        self._metrics.series.labels("without").inc(len(newborn) - len(past.at))
        if len(past.at):
            # What came too late, or has gone meanwhile, is told by the partition.
            self._metrics.series.labels("learned").inc(len(past.at))
            lane.change(lambda partition, now_ms: remember(partition, past, now_ms))
        self._metrics.seconds.observe(time.monotonic() - started_s)
        await asyncio.sleep(max(0.0, started_s + 1 / self._settings.queries_per_s - time.monotonic()))

    async def _learn(self, newborn: Newborn) -> Past:
        """
        Raises:
            QueryRejectedError: the database will never answer this.
        """
        while True:
            try:
                past = await asyncio.to_thread(self._read, newborn)
            except RetryableError as exc:
                if self.error is None:
                    log.warning("new series wait for their past: %s", exc)
                self.error = str(exc)
                await asyncio.sleep(self._pause_s)
                self._pause_s = min(2 * self._pause_s, _BACKOFF_S[1])
            else:
                self.error, self._pause_s = None, _BACKOFF_S[0]
                return past

    def _read(self, newborn: Newborn) -> Past:
        """In a thread: what is read, and what it teaches."""
        spec = newborn.plan.spec
        scores = [watched.pipeline.score for watched in newborn.plan.pipelines]
        wanted = max(spec.context, *(score.warmup + 2 * score.block for score in scores))
        end_ms = int(newborn.born.max()) * spec.step_ms - 1
        span_ms = min(wanted * spec.step_ms, round(self._settings.history_s * 1000))
        start_ms = int(newborn.born.min()) * spec.step_ms - span_ms
        parts = list(
            read_history(
                self._client,
                newborn.labels,
                start_ms,
                end_ms,
                self._settings.series_per_query,
                self._settings.absent_labels,
            )
        )
        row, timestamp_ms, value = _joined(newborn, parts)
        self._metrics.samples.inc(len(row))
        return learn(newborn, row, timestamp_ms, value)


def _joined(
    newborn: Newborn, parts: list[Samples]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Rows of the newborn, times and values of all samples, series after series."""
    place = {block: i for i, block in enumerate(newborn.labels)}
    rows, times, values = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0)]
    for part in parts:
        where = np.array([place[block] for block in part.blocks], np.int64)
        if len(part):
            rows.append(where[part.row])
            times.append(part.timestamp_ms)
            values.append(part.value)
    row = np.concatenate(rows)
    order = np.argsort(row, kind="stable")
    return row[order], np.concatenate(times)[order], np.concatenate(values)[order]
