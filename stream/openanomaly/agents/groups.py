"""Shares of groups: counts of the window workers in, samples of `anomaly_rate` out.

A part of the window role. The counts of a group come to one partition of `.groups`, whichever partitions
its series are in; the share goes into the partition of samples of the same number, and is watched there as
any other series is. A record is released once its shares are written.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence

from openanomaly.agents.events import noticed
from openanomaly.agents.records import Records
from openanomaly.broker.dead_letter import DeadLetters
from openanomaly.broker.faust_app import App, Row, declare, publish
from openanomaly.broker.notes import Origin
from openanomaly.broker.topics import Topics
from openanomaly.core.group_frames import GroupFrame
from openanomaly.core.services.rates import MOST_WAITING, Rates, Told
from openanomaly.errors import RetryableError
from openanomaly.telemetry import GroupMetrics

log = logging.getLogger(__name__)

_Token = tuple[int | None, Origin]
"""Whose step something is: a record, as it came in one generation of the consumer."""

_LOOK_S = 0.25
_RETRY_S = 1.0
_TELL_S = 600.0


class GroupsWorker:
    """Adds up what partitions tell of groups, for the partitions of groups that this process has."""

    def __init__(self, app: App, topics: Topics, metrics: GroupMetrics, dead_letters: DeadLetters) -> None:
        self.app = app
        self._topics = topics
        self._metrics = metrics
        self._rates: dict[int, Rates[_Token]] = {}
        self._open: Counter[_Token] = Counter()
        """Of each record, how many steps of it are not settled."""
        self._generation: int | None = None
        self._came = asyncio.Event()
        self._left = asyncio.Event()
        self._next_tell_s = 0.0
        groups = declare(app, topics.groups)
        self._records = Records(app, topics.groups.name, dead_letters, self._take, metrics.rejected)
        app.agent(groups, name="openanomaly.window.groups")(self._records.read)
        app.task(self._settle)

    # -- counts in -----------------------------------------------------------------------------

    async def _take(self, origin: Origin, value: bytes) -> None:
        frame = GroupFrame.decode(value)
        while sum(map(len, self._rates.values())) > 2 * MOST_WAITING:
            await noticed(self._left)
        if self.app.consumer_generation_id != self._generation:
            # What was not released comes again, to us or to whom the partition is now.
            self._generation = self.app.consumer_generation_id
            self._open.clear()
            for rates in self._rates.values():
                rates.clear()
        rates = self._rates.setdefault(origin.partition, Rates(self._topics.samples.partitions))
        token = self._generation, origin
        now_ms = _now_ms()
        waiting = [rates.take(frame.partition, counts, now_ms, token) for counts in frame.counts]
        if any(waiting):
            self._open[token] = sum(waiting)
        else:
            self._records.done(origin)
        self._came.set()

    # -- shares out ----------------------------------------------------------------------------

    async def _settle(self) -> None:
        while True:
            await noticed(self._came, _LOOK_S)
            now_ms = _now_ms()
            told = {number: list(rates.ready(now_ms)) for number, rates in self._rates.items()}
            records: list[Row] = [
                (number, None, each.frame.encode())
                for number, steps in told.items()
                for each in steps
                if each.frame is not None
            ]
            await self._publish(records)
            for steps in told.values():
                self._count(steps)
                for each in steps:
                    self._release(each.tokens)
            self._left.set()

    async def _publish(self, records: Sequence[Row]) -> None:
        while True:
            try:
                await publish(self.app, self._topics.samples.name, records)
                return
            except RetryableError as exc:
                # What was written of them is written again: windows take a share only once.
                log.warning("%d frames of groups wait: %s", len(records), exc)
                await asyncio.sleep(_RETRY_S)

    def _release(self, tokens: Sequence[_Token]) -> None:
        for token in tokens:
            if token not in self._open:
                continue  # of a generation that has ended
            self._open[token] -= 1
            if not self._open[token]:
                del self._open[token]
                self._records.done(token[1])

    def _count(self, steps: Sequence[Told[_Token]]) -> None:
        for each in steps:
            self._metrics.late.inc(each.late)
            if each.frame is None:
                continue
            self._metrics.shares.labels("incomplete" if each.missing else "complete").inc(len(each.frame.row))
            if each.missing and (now_s := time.monotonic()) >= self._next_tell_s:
                self._next_tell_s = now_s + _TELL_S
                log.info(
                    "shares of groups of pipeline %s lack what %d of %d partitions had to tell: %s",
                    each.pipeline,
                    len(each.missing),
                    self._topics.samples.partitions,
                    ", ".join(map(str, sorted(each.missing)[:20])),
                )


def _now_ms() -> int:
    return int(time.monotonic() * 1000)
