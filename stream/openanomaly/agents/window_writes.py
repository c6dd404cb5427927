"""Where the lanes of a window worker write: its changelogs, contexts, scores and dead letters.

A rebalance closes it: what is on its way is waited for, and nothing comes behind the back of a new owner.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from faust.types import TP

from openanomaly.agents.window_lane import Raw
from openanomaly.broker.dead_letter import DeadLetters
from openanomaly.broker.faust_app import App, Row, publish
from openanomaly.broker.ledger import Ledger
from openanomaly.broker.notes import Origin
from openanomaly.broker.ring_store import send_changelog
from openanomaly.broker.topics import Topics
from openanomaly.core.group_frames import GroupFrame, GroupNews, by_owner, encode_through
from openanomaly.core.windows.inputs import Item
from openanomaly.core.windows.output import Output
from openanomaly.core.windows.records import Record
from openanomaly.errors import DeliveryError
from openanomaly.telemetry import WindowMetrics

_QUIET_S = 20.0
"""Longest wait for records on their way when partitions may leave; below the broker's for us to join."""


class WindowWrites:
    """What lanes write to (window_lane.Writer); closed until `open`."""

    def __init__(
        self,
        app: App,
        topics: Topics,
        metrics: WindowMetrics,
        dead_letters: DeadLetters,
        ring: Any,
        state: Any,
        ledgers: Mapping[str, Ledger],
        compress: bool,
    ) -> None:
        """`ring` and `state` are the tables of the changelogs, `ledgers` those of samples and forecasts."""
        self._app = app
        self._topics = topics
        self._metrics = metrics
        self._dead_letters = dead_letters
        self._ring, self._state = ring, state
        self._ledgers = ledgers
        self._compress = compress
        self._is_open = asyncio.Event()
        self._closings = 0
        self._writing = 0
        self._is_quiet = asyncio.Event()
        self._is_quiet.set()
        self._next_due = 0

    @property
    def is_open(self) -> bool:
        return self._is_open.is_set()

    def open(self) -> None:
        """The partitions of all lanes are ours."""
        self._is_open.set()

    def close(self) -> None:
        """A rebalance begins. A lane that writes waits: it goes on, or is dropped."""
        self._closings += 1
        self._is_open.clear()

    async def wait_until_quiet(self, *args: Any, **kwargs: Any) -> None:
        """A partition may have a new owner as soon as this returns: nothing of ours may come behind its back.

        Raises:
            DeliveryError: records are on their way and nobody confirms them.
        """
        try:
            await asyncio.wait_for(self._is_quiet.wait(), _QUIET_S)
        except TimeoutError as exc:
            raise DeliveryError(
                f"{self._writing} writes were not confirmed within {_QUIET_S:.0f} s of a rebalance"
            ) from exc

    async def state(self, partition: int, records: Sequence[Record]) -> None:
        await self._changelog(self._state, partition, records)

    async def ring(self, partition: int, records: Sequence[Record]) -> None:
        await self._changelog(self._ring, partition, records)

    async def _changelog(self, table: Any, partition: int, records: Sequence[Record]) -> None:
        async with self._write():
            await send_changelog(table, partition, [(r.key, r.value) for r in records])

    async def results(self, partition: int, output: Output) -> None:
        due: list[Row] = []
        for frame in output.due:
            self._next_due = (self._next_due + 1) % self._topics.due.partitions
            due.append((self._next_due, None, frame.encode()))
        scores: list[Row] = [
            (partition, None, record) for frame in output.scores for record in frame.records(self._compress)
        ]
        groups = list(self._group_rows(partition, output.groups))
        async with self._write():
            await asyncio.gather(
                publish(self._app, self._topics.due.name, due),
                publish(self._app, self._topics.scores.name, scores),
                publish(self._app, self._topics.groups.name, groups),
            )

    def _group_rows(self, partition: int, news: GroupNews) -> Iterator[Row]:
        """What owners of groups are told: all of them through which step, and each of its groups."""
        owners = self._topics.groups.partitions
        told = by_owner(news.counts, owners)
        through = encode_through(news.through)
        for owner in range(owners) if news.through else sorted(told):
            for record in GroupFrame(partition, told.get(owner, [])).records(through):
                yield owner, None, record

    @contextlib.asynccontextmanager
    async def _write(self) -> AsyncIterator[None]:
        await self._is_open.wait()
        self._writing += 1
        self._is_quiet.clear()
        try:
            yield
        finally:
            self._writing -= 1
            if not self._writing:
                self._is_quiet.set()

    def took(self, samples: int, waited_s: float) -> None:
        self._metrics.frame_samples.observe(samples)
        self._metrics.queue_wait_seconds.observe(max(0.0, waited_s))

    async def reject(self, topic: str, partition: int, item: Item[Raw], error: Exception) -> None:
        self._metrics.rejected.labels(topic=topic).inc()
        detail, reason = str(error), type(error).__name__
        await self._dead_letters.set_aside(
            topic_name(self._topics, topic), partition, item.offset, None, item.value.value, detail, reason
        )

    async def note(self, topic: str, partition: int, item: Item[Raw], error: Exception) -> None:
        raw = item.value
        origin = origin_of(self._topics, topic, partition, item.offset, raw)
        await self._dead_letters.note(error, [(origin, raw.value)])

    async def release(self, partition: int, samples: int, forecasts: int) -> None:
        offsets = {
            TP(self._topics.samples.name, partition): samples,
            TP(self._topics.forecasts.name, partition): forecasts,
        }
        closings = -1
        # A rebalance that leaves us the partition forgets what was released and not committed.
        while closings != self._closings:
            await self._is_open.wait()
            closings = self._closings
            self._ledgers["samples"].release(partition, samples)
            self._ledgers["forecasts"].release(partition, forecasts)
            await self._app.consumer.committed_through(offsets)


def topic_name(topics: Topics, topic: str) -> str:
    """What the broker calls the topic that a lane calls `samples` or `forecasts`."""
    return topics.samples.name if topic == "samples" else topics.forecasts.name


def origin_of(topics: Topics, topic: str, partition: int, offset: int, raw: Raw) -> Origin:
    """Where a record came from."""
    return Origin(topic_name(topics, topic), partition, offset, raw.written_ms)
