"""`openanomaly migrate`: everything that windows know, and what nobody has read yet, to another broker.

Nobody runs on either side meanwhile. The source is read, partition by partition, as a worker that
recovers would read it; the target's partitions are written as workers would have written them
(docs/decisions/0024-moving-is-a-recovery.md).
"""

import math
import time
from collections.abc import Iterable
from sys import maxsize

from aiokafka.errors import KafkaError

from openanomaly.broker.migrate_sides import Job, Moved, Report, Side
from openanomaly.broker.migrate_source import Source
from openanomaly.broker.migrate_target import Target
from openanomaly.broker.relocated_letters import Relocation
from openanomaly.broker.topics import TopicSpec
from openanomaly.core.frames import DueFrame, SampleFrame, ScoreFrame
from openanomaly.core.windows import migrate as core
from openanomaly.core.windows.admission import Budget
from openanomaly.core.windows.partition import Partition
from openanomaly.errors import BusUnavailableError, MalformedFrameError


async def migrate(source: Side, target: Side, job: Job, report: Report) -> Moved:
    """Move an installation.

    Raises:
        ConfigError: one side cannot be used: somebody runs there, the target is not empty, or the source
            has records that this release cannot read.
        BrokerError: somebody wrote on one side meanwhile, or the source is half moved itself.
        BusUnavailableError: a broker does not answer.
    """
    started_s = time.monotonic()
    moved = Moved()
    old, new = Source(source, job, moved, report), Target(target, moved, is_dry=job.is_dry)
    try:
        for side in (source, target):
            await side.check_alone()
        await old.look()
        await new.check_empty()
        await new.begin(str(source))
        await _Migration(old, new, job, moved, report).run()
        await old.look_again()
        for side in (source, target):
            await side.check_alone()
        await new.finish(str(source))
    except (KafkaError, TimeoutError) as exc:
        raise BusUnavailableError(f"a broker of {source} or {target} did not answer: {exc!r}") from exc
    moved.seconds = time.monotonic() - started_s
    return moved


class _Migration:
    def __init__(self, source: Source, target: Target, job: Job, moved: Moved, report: Report) -> None:
        self._source, self._target, self._job = source, target, job
        self._moved, self._report = moved, report
        self._keeps = source.partitions == target.partitions
        """Whether series stay in the partition of their number."""

    async def run(self) -> None:
        await self._move_scores()  # before those of the runs that are repeated
        await self._move_state()
        await self._move_samples()
        await self._move_due()
        await self._move_letters()
        self._source.tell_what_is_left()

    # -- what windows know -------------------------------------------------------------------------

    async def _move_state(self) -> None:
        """Target by target, in an order in which few source partitions are needed at a time."""
        old, new = self._source.partitions, self._target.partitions
        apart = math.gcd(old, new)
        done = 0
        for first in range(apart):
            sources = range(first, old, apart)
            for number in range(first, new, apart):
                target = await self._move_partition(number, sources)
                done += 1
                self._report(f"partition {number}: {target.series} rows ({done} of {new})")
            for source in sources:
                await self._say_again(source)
                self._source.let_go(source)

    async def _move_partition(self, number: int, sources: Iterable[int]) -> Partition:
        partition = Partition(number, self._job.plans, Budget(maxsize))
        for source in sources:
            held = await self._source.restored(source)
            places = self._source.places[source]
            self._moved.rows += core.move(held, partition, self._target.partitions, places)
        ring, state = self._target.side.ring, self._target.side.state
        await self._target.add_all(state, number, core.catalogue_records(partition))
        await self._target.add_all(ring, number, core.ring_records(partition))
        await self._target.add_all(state, number, core.state_records(partition))
        for frame in core.forecast_frames(partition):
            self._moved.forecasts += frame.row.size
            await self._target.add(self._target.topics.forecasts, number, frame.encode())
        await self._target.flush()
        return partition

    async def _say_again(self, number: int) -> None:
        """What a repeated run said may not have been heard; as after any restart."""
        said = self._source.said.pop(number)
        for scores in said.scores:
            self._moved.scores += scores.row.size
            await self._add_scores(scores)
        for due in said.due:
            await self._add_due(due)

    # -- what nobody has read ----------------------------------------------------------------------

    async def _move_samples(self) -> None:
        topic = self._target.topics.samples
        for number in range(self._source.partitions):
            async for record in self._source.untaken_samples(number):
                value = record.value or b""
                try:
                    frame = SampleFrame.decode(value)
                    # What was packed to fit into a record must be again.
                    compress = self._job.compress or frame.series.labels_zstd is not None
                    parts = [] if self._keeps else list(core.split_samples(frame, topic.partitions))
                except MalformedFrameError:
                    await self._add_whole(topic, number, value)
                    continue
                self._moved.samples += frame.row.size
                if self._keeps:
                    await self._target.add(topic, number, value)
                for to, part in parts:
                    await self._target.add(topic, to, part.encode(compress))
        await self._target.flush()
        self._report(f"{self._moved.samples} samples that are in no window yet")

    async def _move_scores(self) -> None:
        topic = self._target.topics.scores
        for number in range(self._source.partitions):
            async for record in self._source.unread("sink", self._source.topics.scores, number):
                value = record.value or b""
                try:
                    frame = ScoreFrame.decode(value)
                    if not self._keeps:
                        await self._add_scores(frame)
                except MalformedFrameError:
                    await self._add_whole(topic, number, value)
                    continue
                self._moved.scores += frame.row.size
                if self._keeps:
                    await self._target.add(topic, number, value)
        await self._target.flush()
        self._report(f"{self._moved.scores} scores that no sink had written")

    async def _add_scores(self, frame: ScoreFrame) -> None:
        topic = self._target.topics.scores
        for to, part in list(core.split_scores(frame, topic.partitions)):
            for record in part.records(self._job.compress):
                await self._target.add(topic, to, record)

    async def _move_due(self) -> None:
        topic = self._source.topics.due
        for number in range(self._source.partitions):
            async for record in self._source.unread("infer", topic, number):
                value = record.value or b""
                try:
                    await self._add_due(DueFrame.decode(value))
                except MalformedFrameError:
                    await self._add_whole(self._target.topics.due, number, value)
        await self._target.flush()
        self._report(f"{self._moved.contexts} contexts that no model had seen")

    async def _add_due(self, due: DueFrame) -> None:
        places = self._source.places.get(due.partition, {}).get(due.block)
        if places is None:
            return  # of a block that is left behind
        for again in core.split_due(due, places):
            self._moved.contexts += again.row.size
            await self._target.add(self._target.topics.due, again.partition, again.encode())

    async def _move_letters(self) -> None:
        old, new = self._source.topics, self._target.topics
        names = {
            old.samples.name: new.samples.name,
            old.due.name: new.due.name,
            old.forecasts.name: new.forecasts.name,
            old.scores.name: new.scores.name,
        }
        relocation = Relocation(names, self._source.partitions, self._target.partitions)
        async for record in self._source.all(old.dead_letter, 0):
            for value in relocation.take(record.offset, record.value or b""):
                self._moved.letters += 1
                await self._target.add(new.dead_letter, 0, value)
        await self._target.flush()
        self._report(f"{self._moved.letters} dead letters")

    async def _add_whole(self, topic: TopicSpec, number: int, value: bytes) -> None:
        """What cannot be read here can be read by nobody: its reader will say so."""
        self._moved.unreadable += 1
        await self._target.add(topic, number % topic.partitions, value)


__all__ = ["Job", "Moved", "Side", "migrate"]
