"""New series get their past from a database: read in bulk, aside, one query after the other.

Nothing waits for it. Steps that close before the past has come are judged without it; then it is put under
them, and the next step is judged as if the series had been watched all along (core/windows/backfill.py).
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from openanomaly.agents.window_lane import Lane
from openanomaly.core.ports.tsdb_client import Samples, TSDBClient
from openanomaly.core.services.history import groups, read_history
from openanomaly.core.windows.backfill import Newborn, Past, learn, remember
from openanomaly.core.windows.output import Output
from openanomaly.core.windows.partition import Partition
from openanomaly.errors import QueryRejectedError, RetryableError
from openanomaly.settings import BackfillSettings
from openanomaly.telemetry import BackfillMetrics

log = logging.getLogger(__name__)

_LOOK_S = 2.0
"""Senders bring their series within one scrape interval: those that come together are asked for together."""
_AT_ONCE = 20_000
_BACKOFF_S = (1.0, 60.0)
_HAND_OVER_S = 10.0
"""A fleet that is new takes minutes to ask for: what was learned by then is of use already."""


@dataclass(frozen=True)
class _Some:
    """New series of one lane."""

    lane: Lane
    newborn: Newborn

    def take(self, at: NDArray[np.int64]) -> "_Some":
        return _Some(self.lane, self.newborn.take(at))


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
        self._learned: dict[Lane, list[Past]] = defaultdict(list)
        self._handed_s = time.monotonic()
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
            for some in self._newborn():
                await self._give(some)
            self._hand_over()

    def _newborn(self) -> list[list[_Some]]:
        """New series by window specification, those of all lanes together: their names are the same."""
        out: dict[int, list[_Some]] = defaultdict(list)
        for lane in self._lanes().values():
            if lane.is_replaying:
                continue  # who is new there may be old, by the end of it
            for uid, block in lane.partition.blocks.items():
                if len(newborn := Newborn.of(block, block.take_newborn(_AT_ONCE))):
                    out[uid].append(_Some(lane, newborn))
        return list(out.values())

    async def _give(self, some: Sequence[_Some]) -> None:
        whose = [(i, j) for i, each in enumerate(some) for j in range(len(each.newborn))]
        labels = [some[i].newborn.labels[j] for i, j in whose]
        for group in groups(labels, self._settings.series_per_query, self._settings.absent_labels):
            mine: dict[int, list[int]] = defaultdict(list)
            for row in group.rows:
                mine[whose[row][0]].append(whose[row][1])
            await self._give_group([some[i].take(np.array(sorted(at))) for i, at in sorted(mine.items())])

    async def _give_group(self, some: Sequence[_Some]) -> None:
        started_s = time.monotonic()
        asked = sum(len(each.newborn) for each in some)
        try:
            pasts = await self._learn([each.newborn for each in some])
        except QueryRejectedError as exc:
            self._metrics.series.labels("refused").inc(asked)
            log.warning("%d new series have no past: %s", asked, exc)
            return
        except Exception:
            # Nothing of the stream may end for this: without a past they are scored as without a database.
            self._metrics.series.labels("failed").inc(asked)
            log.exception("%d new series have no past", asked)
            return
        learned = 0
        for each, past in zip(some, pasts, strict=True):
            if len(past.at):
                self._learned[each.lane].append(past)
                learned += len(past.at)
        if time.monotonic() - self._handed_s >= _HAND_OVER_S:
            self._hand_over()
        self._metrics.series.labels("learned").inc(learned)
        self._metrics.series.labels("without").inc(asked - learned)
        self._metrics.seconds.observe(time.monotonic() - started_s)
        await asyncio.sleep(max(0.0, started_s + 1 / self._settings.queries_per_s - time.monotonic()))

    def _hand_over(self) -> None:
        """Give lanes what was learned for them. Each writes two checkpoints for it, however much it is."""
        for lane, pasts in self._learned.items():
            lane.change(partial(_remember, pasts))
        self._learned.clear()
        self._handed_s = time.monotonic()

    async def _learn(self, some: Sequence[Newborn]) -> list[Past]:
        """
        Raises:
            QueryRejectedError: the database will never answer this.
        """
        while True:
            try:
                pasts = await asyncio.to_thread(self._read, some)
            except RetryableError as exc:
                if self.error is None:
                    log.warning("new series wait for their past: %s", exc)
                self.error = str(exc)
                await asyncio.sleep(self._pause_s)
                self._pause_s = min(2 * self._pause_s, _BACKOFF_S[1])
            else:
                self.error, self._pause_s = None, _BACKOFF_S[0]
                return pasts

    def _read(self, some: Sequence[Newborn]) -> list[Past]:
        """In a thread: what is read, and what it teaches."""
        plan = some[0].plan
        scores = [watched.pipeline.score for watched in plan.pipelines]
        wanted = max(plan.spec.context, *(score.warmup + 2 * score.block for score in scores))
        step_ms = plan.spec.step_ms
        start_ms = min(int(each.born.min()) for each in some) * step_ms
        start_ms -= min(wanted * step_ms, round(self._settings.history_s * 1000))
        end_ms = max(int(each.born.max()) for each in some) * step_ms - 1
        labels = [label for each in some for label in each.labels]
        size, absent = self._settings.series_per_query, self._settings.absent_labels
        parts = list(read_history(self._client, labels, start_ms, end_ms, size, absent))
        self._metrics.samples.inc(sum(map(len, parts)))
        return [learn(each, *_of(each, parts)) for each in some]


def _remember(pasts: Sequence[Past], partition: Partition, now_ms: int) -> Output:
    """What came too late, or is of series that have gone meanwhile, is left out."""
    out = Output()
    for past in pasts:
        out.add(remember(partition, past, now_ms))
    return out


def _of(
    newborn: Newborn, parts: Sequence[Samples]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Rows of the newborn, times and values of their samples, series after series."""
    place = {block: i for i, block in enumerate(newborn.labels)}
    rows, times, values = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0)]
    for part in parts:
        where = np.array([place.get(block, -1) for block in part.blocks], np.int64)
        if len(part) and (mine := where[part.row] >= 0).any():
            rows.append(where[part.row][mine])
            times.append(part.timestamp_ms[mine])
            values.append(part.value[mine])
    row = np.concatenate(rows)
    order = np.argsort(row, kind="stable")
    return row[order], np.concatenate(times)[order], np.concatenate(values)[order]
