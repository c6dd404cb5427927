"""A topic read beside all groups: every process that follows sees every record, and disturbs nobody.

What is followed is for people to look at, so nothing here may cost the process its work: an outage of
the broker is waited for, a record that cannot be used is counted, and what retention deleted before
it was read is counted too.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from openanomaly.broker.lone_consumer import lone_consumer
from openanomaly.broker.topics import TopicSpec
from openanomaly.errors import OpenAnomalyError, RejectedError

if TYPE_CHECKING:
    from openanomaly.broker.embedded.broker import Broker
    from openanomaly.broker.faust_app import App

log = logging.getLogger(__name__)

_LOOK_S = 0.25
"""How often the embedded broker is looked at."""
_WAIT_MS = 500
_ENDS_S = 2.0
"""How often Kafka is asked where partitions end: also how an outage is noticed."""
_TIMEOUT_S = 10.0
_FETCH_RECORDS = 50
_FETCH_BYTES = 8 << 20
_BACKOFF_S = (0.5, 15.0)

Take = Callable[[int, bytes, bool], None]
"""Takes a partition's number, a record, and whether it came while we followed: else it was there before."""


class Follower:
    """Gives `take` the records of a topic, those of the last `lead_s` seconds first.

    `take` may raise: the record is counted as rejected and passed over. Others have their turn after
    each record.
    """

    def __init__(
        self,
        app: "App",
        spec: TopicSpec,
        take: Take,
        lead_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._spec = spec
        self._take = take
        self._lead_s = lead_s
        self._clock = clock
        self._at: dict[int, int] = {}
        """By partition the offset of the next record."""
        self._first: dict[int, int] = {}
        """By partition where it ended when we first saw it."""
        self.unread = 0
        self.taken = self.rejected = self.missed = 0
        self.error: str | None = "the broker is not connected"
        self.since_s = time.time()
        """When `error` came or went."""
        self._ends: dict[int, int] = {}
        """Where partitions ended at `_ends_s`; all of `_caught_s` was read."""
        self._caught_s = self._ends_s = clock()

    @property
    def behind_s(self) -> float:
        """How long ago there was nothing that is still unread. By our clock alone."""
        return self._clock() - self._caught_s if self.unread else 0.0

    def counts(self) -> dict[str, int]:
        return {"records": self.taken, "rejected": self.rejected, "missed": self.missed}

    def gauges(self) -> dict[str, int]:
        return {"unread_records": self.unread, "is_connected": int(self.error is None)}

    async def run(self) -> None:
        """Follow until cancelled."""
        pause_s, longest_s = _BACKOFF_S
        while True:
            try:
                if self._app.config.is_embedded:
                    await self._follow_embedded()
                else:
                    await self._follow_kafka()
            except (KafkaError, OpenAnomalyError, OSError, TimeoutError) as exc:
                pause_s = _BACKOFF_S[0] if self.error is None else min(pause_s * 2, longest_s)
                self._fail(f"{type(exc).__name__}: {exc}".rstrip(": "))
            except Exception as exc:
                # The scores go on without us: a mistake of ours in here must not end the process.
                pause_s = longest_s
                log.exception("cannot follow %s", self._spec.name)
                self._fail(repr(exc))
            await asyncio.sleep(pause_s)

    def _fail(self, error: str) -> None:
        if self.error is None:
            log.warning("cannot follow %s, trying again: %s", self._spec.name, error)
            self.since_s = time.time()
        self.error = error

    def _look(self, ends: Mapping[int, int]) -> None:
        """The partitions end at these offsets now."""
        self._first = self._first or dict(ends)
        self.unread = sum(max(0, end - self._at[p]) for p, end in ends.items())
        if all(self._at[p] >= end for p, end in self._ends.items()):
            self._caught_s, self._ends_s, self._ends = self._ends_s, self._clock(), dict(ends)

    def _succeed(self) -> None:
        if self.error is not None:
            self.error, self.since_s = None, time.time()

    # -- embedded ------------------------------------------------------------------------------

    async def _follow_embedded(self) -> None:
        broker: Broker = cast("Any", self._app.producer_transport).broker
        topic = self._spec.name
        parts = [(topic, p) for p in range(self._spec.partitions)]
        # Nothing is asked for by time: what all groups have read is deleted soon, so there is little.
        since_ms = self._since_ms()
        for (_, p), first in (await broker.earliest(parts)).items():
            self._at.setdefault(p, first)
            self._move(p, first)
        while True:
            ends = {p: broker.high_water((topic, p)) for p in self._at}
            behind = {(topic, p): at for p, at in self._at.items() if at < ends[p]}
            self._look(ends)
            self._succeed()
            if behind:
                found = await broker.fetch(behind, _FETCH_RECORDS, _FETCH_BYTES)
                for (_, p), records in found.items():
                    await self._put(p, [(r.offset, r.timestamp_ms, r.value) for r in records], since_ms)
                    if not records:  # all of them were deleted
                        self._move(p, ends[p])
            else:
                await asyncio.sleep(_LOOK_S)

    # -- Kafka ---------------------------------------------------------------------------------

    async def _follow_kafka(self) -> None:
        tps = [TopicPartition(self._spec.name, p) for p in range(self._spec.partitions)]
        async with lone_consumer(self._app, tps, _TIMEOUT_S) as consumer:
            async with asyncio.timeout(_TIMEOUT_S):
                await self._seek(consumer, tps)
            await self._read_kafka(consumer, tps)

    async def _seek(self, consumer: Any, tps: list[TopicPartition]) -> None:
        """Go on where we were; at first, where the topic was `lead_s` ago."""
        ends = await consumer.end_offsets(tps)
        since = await consumer.offsets_for_times(dict.fromkeys(tps, self._since_ms()))
        self._first = self._first or {tp.partition: end for tp, end in ends.items()}
        for tp in tps:
            start = ends[tp] if since[tp] is None else since[tp].offset
            at = self._at.get(tp.partition, start)
            # A topic that was made anew ends before the place where we were.
            self._at[tp.partition] = at if at <= ends[tp] else start
            consumer.seek(tp, self._at[tp.partition])

    async def _read_kafka(self, consumer: Any, tps: list[TopicPartition]) -> None:
        asked_s = -_ENDS_S
        while True:
            if time.monotonic() - asked_s >= _ENDS_S:
                async with asyncio.timeout(_TIMEOUT_S):
                    ends = await consumer.end_offsets(tps)
                asked_s = time.monotonic()
                self._look({tp.partition: end for tp, end in ends.items()})
                self._succeed()
            found = await consumer.getmany(timeout_ms=_WAIT_MS, max_records=_FETCH_RECORDS)
            for tp, records in found.items():
                await self._put(tp.partition, [(r.offset, r.timestamp, r.value) for r in records], 0)

    # -- both ----------------------------------------------------------------------------------

    def _since_ms(self) -> int:
        return int((time.time() - self._lead_s) * 1000)

    async def _put(
        self, partition: int, records: Iterable[tuple[int, int, bytes | None]], since_ms: int
    ) -> None:
        for offset, written_ms, value in records:
            self._move(partition, offset)
            self._at[partition] = offset + 1
            if written_ms >= since_ms:
                self._give(partition, offset, value or b"")
            await asyncio.sleep(0)  # a record is up to some milliseconds of work

    def _move(self, partition: int, offset: int) -> None:
        """Offsets ascend by one, but where records were deleted."""
        self.missed += max(0, offset - self._at[partition])
        self._at[partition] = max(offset, self._at[partition])

    def _give(self, partition: int, offset: int, value: bytes) -> None:
        try:
            self._take(partition, value, offset >= self._first[partition])
            self.taken += 1
        except Exception as exc:
            # The sink sets such a record aside and tells of it; here it only is not shown.
            self.rejected += 1
            known = isinstance(exc, RejectedError)
            log.debug("%s[%d] offset %d is passed over", self._spec.name, partition, offset, exc_info=exc)
            if not known and self.rejected == 1:
                log.exception("%s[%d] offset %d cannot be shown", self._spec.name, partition, offset)
