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
from openanomaly.core.services import shares
from openanomaly.core.services.shares import MOST_WAITING, Settled, Shares
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
        self._shares: dict[int, Shares[_Token]] = {}
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
        while sum(map(len, self._shares.values())) > 2 * MOST_WAITING:
            await noticed(self._left)
        if self.app.consumer_generation_id != self._generation:
            # What was not released comes again, to us or to whom the partition is now.
            self._generation = self.app.consumer_generation_id
            self._open.clear()
            for each in self._shares.values():
                each.clear()
        mine = self._shares.setdefault(origin.partition, Shares(self._topics.samples.partitions))
        token = self._generation, origin
        now_ms = _now_ms()
        for counts in frame.counts:
            mine.take(frame.partition, counts, now_ms, token)
        for through in frame.through:
            mine.pass_through(frame.partition, through)
        if frame.counts:
            self._open[token] = len(frame.counts)
        else:
            self._records.done(origin)
        self._came.set()

    # -- shares out ----------------------------------------------------------------------------

    async def _settle(self) -> None:
        while True:
            await noticed(self._came, _LOOK_S)
            now_ms, received_ms = _now_ms(), int(time.time() * 1000)
            settled = {
                number: list(mine.settle(now_ms, received_ms)) for number, mine in self._shares.items()
            }
            rows: list[Row] = [
                (number, None, record)
                for number, steps in settled.items()
                for each in steps
                if each.frame is not None
                for record in shares.records(each.frame)
            ]
            await self._publish(rows)
            for steps in settled.values():
                self._count(steps)
                for each in steps:
                    self._release(each.tokens)
            self._left.set()

    async def _publish(self, rows: Sequence[Row]) -> None:
        while True:
            try:
                await publish(self.app, self._topics.samples.name, rows)
                return
            except RetryableError as exc:
                # What was written of them is written again: windows take a share only once.
                log.warning("%d frames of groups wait: %s", len(rows), exc)
                await asyncio.sleep(_RETRY_S)

    def _release(self, tokens: Sequence[_Token]) -> None:
        for token in tokens:
            if token not in self._open:
                continue  # of a generation that has ended
            self._open[token] -= 1
            if not self._open[token]:
                del self._open[token]
                self._records.done(token[1])

    def _count(self, steps: Sequence[Settled[_Token]]) -> None:
        for each in steps:
            self._metrics.left_out.labels("late").inc(each.late)
            self._metrics.left_out.labels("small").inc(each.small)
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
