"""The installation that moves: read as its workers would read it, and never changed."""

import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from openanomaly.broker.embedded.rows import Stored
from openanomaly.broker.migrate_sides import Job, Moved, Reader, Report, Side
from openanomaly.broker.notes import Notes, Origin
from openanomaly.broker.offline import Bounds
from openanomaly.broker.topics import TopicSpec
from openanomaly.core.windows import migrate as core
from openanomaly.core.windows import records
from openanomaly.core.windows.admission import Budget
from openanomaly.core.windows.output import Output
from openanomaly.core.windows.partition import Partition
from openanomaly.errors import BrokerError, ConfigError, MalformedFrameError

_HELD = 4
"""Partitions in memory at once: where counts divide one another, none is read twice."""
_MARGIN = 1.25
"""Of `emit_all_limit`: partitions differ in their series, and a score too many does no harm."""


class Source:
    """Partitions with their state, and records that nobody has read."""

    def __init__(self, side: Side, job: Job, moved: Moved, report: Report) -> None:
        self.topics, self.partitions = side.topics, side.partitions
        self.places: dict[int, dict[int, core.Places]] = {}
        """By partition and block, where the rows went."""
        self.said: dict[int, Output] = {}
        """By partition: scores and contexts of the run it repeated, which may not have been heard."""
        self._side, self._job, self._moved, self._report = side, job, moved, report
        self._plans = {plan.spec.uid: plan for plan in job.plans}
        self._bounds: dict[str, list[Bounds]] = {}
        self._notes = Notes()
        self._held: OrderedDict[int, Partition] = OrderedDict()
        self._untaken: dict[int, int] = {}
        self._strangers: dict[int, tuple[str, dict[tuple[int, bytes], int]]] = {}
        self._scorers: set[tuple[int, int]] = set()

    async def look(self) -> None:
        """See what there is.

        Raises:
            ConfigError: topics do not belong together.
        """
        log = self._side.log
        for spec in self._side.specs:
            found = self._bounds[spec.name] = await log.bounds(spec.name)
            if len(found) not in (0, spec.partitions):
                raise ConfigError(
                    f"topic {spec.name} has {len(found)} partitions in {log}, and {self.topics.samples.name} "
                    f"{self.partitions}: they are not of one installation"
                )
        async for record in self.all(self.topics.dead_letter, 0):
            self._notes.add(record.value or b"")

    async def look_again(self) -> None:
        """Raises:
        BrokerError: samples have come since.
        """
        topic = self.topics.samples.name
        for number, (_, end) in enumerate(await self._side.log.bounds(topic)):
            if more := end - self._bounds[topic][number][1]:
                raise BrokerError(
                    f"{more} records came to {topic}[{number}] in {self._side.log} meanwhile: stop its "
                    "receivers, delete what was written to the target and migrate again"
                )

    # -- what windows know -------------------------------------------------------------------------

    async def restored(self, number: int) -> Partition:
        """A partition at the end of its run. A few are held; others are read again.

        Raises:
            ConfigError: a record is of a newer release, or damaged.
            BrokerError: the partition has only a part of what was moved here.
        """
        if number in self._held:
            self._held.move_to_end(number)
            return self._held[number]
        while len(self._held) >= _HELD:
            self._held.popitem(last=False)
        # No series is new: those of the run have their rows in the catalogue.
        partition = Partition(number, self._job.plans, Budget(0))
        for spec in (self._side.ring, self._side.state):
            await self._restore(partition, spec)
        partition.start()
        limit = _MARGIN * self._job.emit_all_limit / self.partitions
        is_all = self._job.emit == "all" or (self._job.emit == "auto" and partition.distinct_series <= limit)
        partition.emit = "all" if is_all else "episodes"
        is_new = number not in self.places
        said = await self._repeat(partition, is_new=is_new)
        self._held[number] = partition
        if is_new:
            self.places[number] = {uid: core.Places(block) for uid, block in partition.blocks.items()}
            self.said[number] = said
            self._moved.series += partition.distinct_series
            self._untaken[number] = partition.position.samples
        return partition

    def let_go(self, number: int) -> None:
        """A partition is not needed again."""
        self._held.pop(number, None)

    async def _restore(self, partition: Partition, spec: TopicSpec) -> None:
        number = partition.number
        async for record in self.all(spec, number):
            if record.key is None or record.value is None:
                continue
            try:
                partition.restore(record.key, record.value)
                self._look_for_strangers(number, record.key, record.value)
            except MalformedFrameError as exc:
                raise ConfigError(
                    f"{spec.name}[{number}] offset {record.offset} in {self._side.log}: {exc}"
                ) from exc

    async def _repeat(self, partition: Partition, *, is_new: bool) -> Output:
        """Bring a partition to the end of its run; what it said there."""
        number, samples, forecasts = partition.number, self.topics.samples, self.topics.forecasts
        begin_samples = await self._begin_of("window", samples, number, tell=is_new)
        begin_forecasts = await self._begin_of("window", forecasts, number, tell=is_new)
        end_samples, end_forecasts = self._end_of(samples, number), self._end_of(forecasts, number)
        partition.seek(begin_samples, begin_forecasts, end_samples, end_forecasts)
        run, now_ms = core.Repeat(partition), int(time.time() * 1000)
        said = run.go_on(now_ms)
        async with (
            aclosing(self._some(samples, number, begin_samples, run.end)) as some_samples,
            aclosing(self._some(forecasts, number, begin_forecasts, end_forecasts)) as some_forecasts,
        ):
            while (topic := run.wants()) is not None:
                record = await anext(some_samples if topic == "samples" else some_forecasts, None)
                if record is None:
                    said.add(run.lacks(topic, now_ms))
                else:
                    said.add(self._give(run, topic, record, now_ms))
            async for record in some_forecasts:
                self._give(run, "forecasts", record, now_ms)
        return Output(due=said.due, scores=said.scores)

    def _give(self, run: core.Repeat, topic: core.Topic, record: Stored, now_ms: int) -> Output:
        spec = self.topics.samples if topic == "samples" else self.topics.forecasts
        is_gone = self._is_set_aside(spec, run.partition.number, record)
        value = None if is_gone else record.value or b""
        return run.give(topic, record.offset, value, record.timestamp_ms, now_ms)

    # -- what is left behind -----------------------------------------------------------------------

    def _look_for_strangers(self, number: int, key: bytes, value: bytes) -> None:
        kind, uid, page, _ = records.read_key(key)
        plan = self._plans.get(uid)
        if kind == records.CATALOGUE and plan is None:
            stranger = core.Stranger.of(value)
            _, pages = self._strangers.setdefault(uid, (stranger.specification, {}))
            pages[number, key] = stranger.series  # the latest record of the page
        elif kind == records.COLD and plan is not None and page == 0:
            self._scorers |= {(uid, scorer) for scorer in core.unknown_scorers(value, plan)}

    def tell_what_is_left(self) -> None:
        for specification, pages in self._strangers.values():
            self._report(
                f"warning: {sum(pages.values())} rows are left behind, since no pipeline here has their "
                f"windows: {specification}"
            )
        for uid, scorer in sorted(self._scorers):
            self._report(
                f"warning: what scorer {scorer:016x} knew is left behind, since no pipeline here is its "
                f"owner; its windows: {self._plans[uid].spec}"
            )

    # -- what nobody has read ----------------------------------------------------------------------

    async def untaken_samples(self, number: int) -> AsyncIterator[Stored]:
        """Sample frames that are in no window of the partition, which was `restored` before."""
        spec = self.topics.samples
        async for record in self._usable(spec, number, self._untaken[number]):
            yield record

    async def unread(self, reader: Reader, spec: TopicSpec, number: int) -> AsyncIterator[Stored]:
        """Records behind what a role has committed."""
        async for record in self._usable(spec, number, await self._begin_of(reader, spec, number)):
            yield record

    async def all(self, spec: TopicSpec, number: int) -> AsyncIterator[Stored]:
        """Every record of a partition."""
        if self._bounds[spec.name]:
            async for record in self._some(spec, number, *self._bounds[spec.name][number]):
                yield record

    async def _usable(self, spec: TopicSpec, number: int, begin: int) -> AsyncIterator[Stored]:
        async for record in self._some(spec, number, begin, self._end_of(spec, number)):
            if self._is_set_aside(spec, number, record):
                self._moved.passed_over[spec.name] += 1
            else:
                yield record

    def _some(self, spec: TopicSpec, number: int, start: int, end: int) -> AsyncGenerator[Stored, None]:
        return self._side.log.read(spec.name, number, start, end)

    def _is_set_aside(self, spec: TopicSpec, number: int, record: Stored) -> bool:
        return self._notes.is_set_aside(Origin(spec.name, number, record.offset, record.timestamp_ms))

    def _end_of(self, spec: TopicSpec, number: int) -> int:
        bounds = self._bounds[spec.name]
        return bounds[number][1] if bounds else 0

    async def _begin_of(self, reader: Reader, spec: TopicSpec, number: int, *, tell: bool = True) -> int:
        """Where a role goes on: at its committed offset, or at the earliest there is."""
        if not self._bounds[spec.name]:
            return 0
        committed = (await self._side.log.committed(self._side.group(reader), spec.name))[number]
        first = self._bounds[spec.name][number][0]
        lost = first - committed if committed is not None else 0
        if lost > 0 and tell:
            self._moved.expired += lost
            self._report(
                f"warning: {lost} records of {spec.name}[{number}] were deleted by retention before they "
                "were read"
            )
        return max(first, committed or 0)
