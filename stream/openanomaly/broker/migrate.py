"""`openanomaly migrate`: everything that windows know, and what nobody has read yet, to another broker.

Nobody runs on either side meanwhile. The source is read, partition by partition, as a worker that
recovers would read it; the target's partitions are written as workers would have written them
(docs/decisions/0024-moving-is-a-recovery.md).
"""

import math
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from sys import maxsize
from typing import Literal

from aiokafka.errors import KafkaError

from openanomaly.broker.embedded.rows import Stored
from openanomaly.broker.faust_app import Row
from openanomaly.broker.notes import Notes, Origin
from openanomaly.broker.offline import Bounds, Log
from openanomaly.broker.relocated_letters import Relocation
from openanomaly.broker.ring_store import changelog_spec
from openanomaly.broker.topics import Topics, TopicSpec
from openanomaly.core.frames import DueFrame, SampleFrame, ScoreFrame
from openanomaly.core.windows import migrate as core
from openanomaly.core.windows import records
from openanomaly.core.windows.partition import Budget, Output, Partition
from openanomaly.core.windows.plan import BlockPlan, ring_retention_s
from openanomaly.core.windows.records import Record
from openanomaly.errors import BrokerError, BusUnavailableError, ConfigError, MalformedFrameError

Report = Callable[[str], None]

_BATCH_BYTES = 8 << 20
_HELD = 4
"""Source partitions in memory at once: where counts divide one another, none is read twice."""


@dataclass(frozen=True, slots=True)
class Side:
    """An installation: a broker, and its topics there."""

    log: Log
    prefix: str
    topics: Topics
    ring: TopicSpec
    state: TopicSpec

    @classmethod
    def of(cls, log: Log, prefix: str, topics: Topics, plans: Sequence[BlockPlan]) -> "Side":
        partitions, app_id = topics.samples.partitions, f"{prefix}-window"
        return cls(
            log,
            prefix,
            topics,
            changelog_spec(app_id, "ring", partitions, ring_retention_s(plans)),
            changelog_spec(app_id, "state", partitions, None),
        )

    @property
    def partitions(self) -> int:
        return self.topics.samples.partitions

    @property
    def specs(self) -> list[TopicSpec]:
        t = self.topics
        return [t.samples, t.due, t.forecasts, t.scores, t.dead_letter, self.ring, self.state]

    def group(self, role: Literal["window", "infer", "sink"]) -> str:
        return f"{self.prefix}-{role}"

    def __str__(self) -> str:
        return f"{self.log} ({self.prefix})"


@dataclass(frozen=True, slots=True)
class Job:
    """What to move, and how it is written there.

    Attributes:
        emit, emit_all_limit: of the source's workers: which scores of the run that is repeated they sent.
        compress: label columns of frames.
    """

    plans: Sequence[BlockPlan]
    emit: Literal["auto", "all", "episodes"] = "auto"
    emit_all_limit: int = 20_000
    compress: bool = True
    is_dry: bool = False


@dataclass(slots=True)
class Moved:
    """What was moved."""

    series: int = 0
    rows: int = 0
    """Of all window specifications: a series of several has one in each."""
    samples: int = 0
    scores: int = 0
    forecasts: int = 0
    contexts: int = 0
    letters: int = 0
    unreadable: int = 0
    expired: int = 0
    records: int = 0
    size_bytes: int = 0
    seconds: float = 0.0
    passed_over: Counter[str] = field(default_factory=Counter)
    """Records that were set aside and not yet passed over, by topic."""


async def migrate(source: Side, target: Side, job: Job, report: Report) -> Moved:
    """Move an installation.

    Raises:
        ConfigError: one side cannot be used: somebody runs there, the target is not empty, the source has
            nothing, or records that this release cannot read.
        BrokerError: somebody wrote on one side meanwhile.
        BusUnavailableError: a broker does not answer.
    """
    started_s = time.monotonic()
    migration = _Migration(source, target, job, report)
    try:
        await migration.run()
    except (KafkaError, TimeoutError) as exc:
        raise BusUnavailableError(f"a broker of {source} or {target} did not answer: {exc!r}") from exc
    migration.moved.seconds = time.monotonic() - started_s
    return migration.moved


class _Writer:
    """Appends to the target in batches; nobody else may."""

    def __init__(self, log: Log, moved: Moved, *, is_dry: bool) -> None:
        self._log, self._moved, self._is_dry = log, moved, is_dry
        self._waiting: dict[str, list[Row]] = defaultdict(list)
        self._waiting_bytes = 0
        self._next: Counter[tuple[str, int]] = Counter()

    async def add(self, topic: TopicSpec, partition: int, key: bytes | None, value: bytes | None) -> None:
        self._waiting[topic.name].append((partition, key, value))
        size = len(key or b"") + len(value or b"")
        self._waiting_bytes += size
        self._moved.records += 1
        self._moved.size_bytes += size
        if self._waiting_bytes >= _BATCH_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Returns once everything is durable."""
        waiting, self._waiting = self._waiting, defaultdict(list)
        self._waiting_bytes = 0
        for topic, rows in waiting.items() if not self._is_dry else ():
            offsets = await self._log.write(topic, rows)
            for (partition, _, _), offset in zip(rows, offsets, strict=True):
                if offset != self._next[topic, partition]:
                    raise BrokerError(
                        f"somebody else writes to {topic} in {self._log} while it is being filled: stop "
                        "every role there, delete what was written and migrate again"
                    )
                self._next[topic, partition] += 1


class _Migration:
    def __init__(self, source: Side, target: Side, job: Job, report: Report) -> None:
        self._source, self._target, self._job, self._report = source, target, job, report
        self.moved = Moved()
        self._out = _Writer(target.log, self.moved, is_dry=job.is_dry)
        self._plans = {plan.spec.uid: plan for plan in job.plans}
        self._bounds: dict[str, list[Bounds]] = {}
        self._notes = Notes()
        self._held: OrderedDict[int, Partition] = OrderedDict()
        self._places: dict[int, dict[int, core.Places]] = {}
        self._said: dict[int, Output] = {}
        self._unread: dict[int, int] = {}
        """By partition of the source: offset of the first sample frame that its windows have not taken."""
        self._strangers: dict[int, tuple[str, dict[tuple[int, bytes], int]]] = {}
        self._scorers: set[tuple[int, int]] = set()

    async def run(self) -> None:
        await self._check()
        if not self._job.is_dry:
            await self._begin()
        await self._read_notes()
        await self._move_scores()
        await self._move_state()
        await self._move_samples()
        await self._move_due()
        await self._move_letters()
        await self._out.flush()
        await self._look_again()
        self._tell_what_is_left()
        if not self._job.is_dry:
            await self._finish()

    # -- before and after --------------------------------------------------------------------------

    async def _check(self) -> None:
        await self._check_alone()
        for spec in self._source.specs:
            self._bounds[spec.name] = await self._source.log.bounds(spec.name)
        samples = self._source.topics.samples.name
        for spec in self._source.specs:
            found = len(self._bounds[spec.name])
            if found not in (0, spec.partitions):
                raise ConfigError(
                    f"topic {spec.name} has {found} partitions in {self._source.log}, and {samples} "
                    f"{self._source.partitions}: they are not of one installation"
                )
        for spec in self._target.specs:
            bounds = await self._target.log.bounds(spec.name)
            if any(end > 0 for _, end in bounds):
                raise ConfigError(await self._why_not_empty(spec))
            if bounds and len(bounds) != spec.partitions:
                raise ConfigError(
                    f"topic {spec.name} has {len(bounds)} partitions in {self._target.log}, and "
                    f"{spec.partitions} are wanted: delete it, or use --partitions {len(bounds)}"
                )

    async def _check_alone(self) -> None:
        for side in (self._source, self._target):
            for role in ("window", "infer", "sink"):
                if count := await side.log.members(side.group(role)):
                    raise ConfigError(
                        f"group {side.group(role)} in {side.log} has {count} members: stop every role on "
                        "both sides first, receivers too"
                    )

    async def _why_not_empty(self, spec: TopicSpec) -> str:
        target = self._target
        names = ", ".join(s.name for s in target.specs)
        where = (
            f"move the folder of {target.log} away"
            if target.log.config.is_embedded
            else f"delete these topics with kafka-topics: {names}"
        )
        if (begun := await self._begun_from()) is not None:
            return (
                f"{target.log} has a part of what was moved there from {begun}: that did not come to its "
                f"end. The source still has all of it. To begin anew, {where}"
            )
        return (
            f"topic {spec.name} in {target.log} has had records: history can only be moved to where there is "
            f"none. Use another --target-prefix or another broker; or, to lose what is there, {where}"
        )

    async def _begun_from(self) -> str | None:
        """From where a move began that has not ended."""
        log, state = self._target.log, self._target.state.name
        for number, (first, end) in enumerate(await log.bounds(state)):
            begun = None
            async for record in log.read(state, number, first, end):
                if record.key == records.key(records.MOVE, 0, 0) and record.value is not None:
                    begun = records.restore_move(record.value)
            if begun is not None:
                return begun
        return None

    async def _begin(self) -> None:
        """Whoever starts on the target from here on, and until the end, is refused."""
        await self._target.log.create(self._target.specs)
        await self._mark(is_complete=False)

    async def _mark(self, *, is_complete: bool) -> None:
        mark = records.move_record(str(self._source), is_complete=is_complete)
        for number in range(self._target.partitions):
            await self._out.add(self._target.state, number, *mark)
        await self._out.flush()

    async def _look_again(self) -> None:
        await self._check_alone()
        topic = self._source.topics.samples.name
        for number, (_, end) in enumerate(await self._source.log.bounds(topic)):
            if more := end - self._bounds[topic][number][1]:
                raise BrokerError(
                    f"{more} records came to {topic}[{number}] in {self._source.log} meanwhile: stop its "
                    "receivers, delete what was written to the target and migrate again"
                )

    async def _finish(self) -> None:
        """Every group begins with what was moved; then the target is complete."""
        target, t = self._target, self._target.topics
        reads = {"window": (t.samples, t.forecasts), "infer": (t.due,), "sink": (t.scores,)}
        for role in ("window", "infer", "sink"):
            specs = reads[role]
            begin = {(spec.name, p): 0 for spec in specs for p in range(spec.partitions)}
            await target.log.commit(target.group(role), begin)
        await self._mark(is_complete=True)

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
                self._held.pop(source, None)

    async def _move_partition(self, number: int, sources: Iterable[int]) -> Partition:
        target = Partition(number, self._job.plans, Budget(maxsize))
        for source in sources:
            held = await self._restored(source)
            self.moved.rows += core.move(held, target, self._target.partitions, self._places[source])
        await self._add(self._target.state, number, core.catalogue_records(target))
        await self._add(self._target.ring, number, core.ring_records(target))
        await self._add(self._target.state, number, core.state_records(target))
        for frame in core.forecast_frames(target):
            self.moved.forecasts += frame.row.size
            await self._out.add(self._target.topics.forecasts, number, None, frame.encode())
        await self._out.flush()
        return target

    async def _add(self, topic: TopicSpec, number: int, some: Iterator[Record]) -> None:
        for record in some:
            await self._out.add(topic, number, *record)

    async def _restored(self, number: int) -> Partition:
        """A source partition at the end of its run."""
        if number in self._held:
            self._held.move_to_end(number)
            return self._held[number]
        while len(self._held) >= _HELD:
            self._held.popitem(last=False)
        # No series is new: those of the run have their rows in the catalogue.
        partition = Partition(number, self._job.plans, Budget(0))
        for spec in (self._source.ring, self._source.state):
            async for record in self._all(spec, number):
                if record.key is not None and record.value is not None:
                    self._look_for_strangers(number, record.key, record.value)
                    try:
                        partition.restore(record.key, record.value)
                    except MalformedFrameError as exc:
                        raise ConfigError(
                            f"{spec.name}[{number}] offset {record.offset} in {self._source.log}: {exc}"
                        ) from exc
        partition.start()
        limit = self._job.emit_all_limit / self._source.partitions
        is_all = self._job.emit == "all" or (self._job.emit == "auto" and partition.distinct_series <= limit)
        partition.emit = "all" if is_all else "episodes"
        is_new = number not in self._places
        said = await self._repeat(partition, is_new=is_new)
        self._held[number] = partition
        if is_new:
            self._places[number] = {uid: core.Places(block) for uid, block in partition.blocks.items()}
            self._said[number] = said
            self.moved.series += partition.distinct_series
            self._unread[number] = partition.position.samples
        return partition

    async def _repeat(self, partition: Partition, *, is_new: bool) -> Output:
        """Bring a partition to the end of its run; what it said there and may not have been heard."""
        number, t = partition.number, self._source.topics
        begin = {}
        for spec in (t.samples, t.forecasts):
            begin[spec.name] = await self._begin_of(self._source.group("window"), spec, number, tell=is_new)
        ends = {spec.name: self._end_of(spec, number) for spec in (t.samples, t.forecasts)}
        partition.seek(
            begin[t.samples.name], begin[t.forecasts.name], ends[t.samples.name], ends[t.forecasts.name]
        )
        run = core.Repeat(partition)
        reads = {
            "samples": self._some(t.samples, number, begin[t.samples.name], run.end),
            "forecasts": self._some(t.forecasts, number, begin[t.forecasts.name], ends[t.forecasts.name]),
        }
        now_ms = int(time.time() * 1000)
        said = run.go_on(now_ms)
        while (topic := run.wants()) is not None:
            record = await anext(reads[topic], None)
            if record is None:
                run.lacks(topic)
                said.add(run.go_on(now_ms))
            else:
                spec = t.samples if topic == "samples" else t.forecasts
                said.add(self._give(run, topic, spec, record, now_ms))
        async for record in reads["forecasts"]:
            self._give(run, "forecasts", t.forecasts, record, now_ms)
        return Output(due=said.due, scores=said.scores)

    def _give(
        self, run: core.Repeat, topic: core.Topic, spec: TopicSpec, record: Stored, now_ms: int
    ) -> Output:
        is_gone = self._is_set_aside(spec, run.partition.number, record)
        value = None if is_gone else record.value or b""
        return run.give(topic, record.offset, value, record.timestamp_ms, now_ms)

    async def _say_again(self, number: int) -> None:
        """Scores and contexts of the run, which may not have been sent; as after any restart."""
        said = self._said.pop(number)
        for scores in said.scores:
            for to, mine in core.split_scores(scores, self._target.partitions):
                self.moved.scores += mine.row.size
                await self._add_scores(to, mine)
        for due in said.due:
            await self._send_due(due)

    def _look_for_strangers(self, number: int, key: bytes, value: bytes) -> None:
        kind, uid, page, _ = records.read_key(key)
        plan = self._plans.get(uid)
        if kind == records.CATALOGUE and plan is None:
            stranger = core.Stranger.of(value)
            _, pages = self._strangers.setdefault(uid, (stranger.specification, {}))
            pages[number, key] = stranger.series  # the latest record of the page
        elif kind == records.COLD and plan is not None and page == 0:
            self._scorers |= {(uid, scorer) for scorer in core.unknown_scorers(value, plan)}

    def _tell_what_is_left(self) -> None:
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

    async def _move_samples(self) -> None:
        t = self._source.topics
        for number in range(self._source.partitions):
            unread = self._unread[number]
            async for record in self._some(t.samples, number, unread, self._end_of(t.samples, number)):
                if self._is_set_aside(t.samples, number, record):
                    self.moved.passed_over[t.samples.name] += 1
                    continue
                value = record.value or b""
                try:
                    frame = SampleFrame.decode(value)
                    parts = [] if self._keeps else list(core.split_samples(frame, self._target.partitions))
                    self.moved.samples += frame.row.size
                except MalformedFrameError:
                    await self._add_whole(self._target.topics.samples, number, value)
                    continue
                if self._keeps:
                    await self._out.add(self._target.topics.samples, number, None, value)
                # What was packed to fit into a record must be again.
                compress = self._job.compress or frame.series.labels_zstd is not None
                for to, part in parts:
                    await self._out.add(self._target.topics.samples, to, None, part.encode(compress))
        await self._out.flush()
        self._report(f"{self.moved.samples} samples that no checkpoint had covered")

    async def _move_scores(self) -> None:
        t, group = self._source.topics, self._source.group("sink")
        for number in range(self._source.partitions):
            async for record in self._unread_of(group, t.scores, number):
                value = record.value or b""
                try:
                    frame = ScoreFrame.decode(value)
                    parts = [] if self._keeps else list(core.split_scores(frame, self._target.partitions))
                    self.moved.scores += frame.row.size
                except MalformedFrameError:
                    await self._add_whole(self._target.topics.scores, number, value)
                    continue
                if self._keeps:
                    await self._out.add(self._target.topics.scores, number, None, value)
                for to, part in parts:
                    await self._add_scores(to, part)
        await self._out.flush()
        self._report(f"{self.moved.scores} scores that no sink had written")

    async def _add_scores(self, to: int, frame: ScoreFrame) -> None:
        for record in frame.records(self._job.compress):
            await self._out.add(self._target.topics.scores, to, None, record)

    async def _move_due(self) -> None:
        t, group = self._source.topics, self._source.group("infer")
        for number in range(self._source.partitions):
            async for record in self._unread_of(group, t.due, number):
                try:
                    await self._send_due(DueFrame.decode(record.value or b""))
                except MalformedFrameError:
                    await self._add_whole(self._target.topics.due, number, record.value or b"")
        await self._out.flush()
        self._report(f"{self.moved.contexts} contexts that no model had seen")

    async def _send_due(self, due: DueFrame) -> None:
        places = self._places.get(due.partition, {}).get(due.block)
        if places is None:
            return
        for again in core.split_due(due, places):
            self.moved.contexts += again.row.size
            await self._out.add(self._target.topics.due, again.partition, None, again.encode())

    async def _move_letters(self) -> None:
        source, target = self._source.topics, self._target.topics
        names = {
            getattr(source, name).name: getattr(target, name).name
            for name in ("samples", "due", "forecasts", "scores")
        }
        relocation = Relocation(names, self._source.partitions, self._target.partitions)
        async for record in self._all(source.dead_letter, 0):
            for value in relocation.take(record.offset, record.value or b""):
                self.moved.letters += 1
                await self._out.add(target.dead_letter, 0, None, value)
        await self._out.flush()
        self._report(f"{self.moved.letters} dead letters")

    async def _add_whole(self, topic: TopicSpec, number: int, value: bytes) -> None:
        """What cannot be read here can be read by nobody: its reader will say so."""
        self.moved.unreadable += 1
        await self._out.add(topic, number % topic.partitions, None, value)

    @property
    def _keeps(self) -> bool:
        """Whether series stay in the partition of their number."""
        return self._source.partitions == self._target.partitions

    # -- the source's records ----------------------------------------------------------------------

    async def _read_notes(self) -> None:
        async for record in self._all(self._source.topics.dead_letter, 0):
            self._notes.add(record.value or b"")

    def _is_set_aside(self, spec: TopicSpec, number: int, record: Stored) -> bool:
        return self._notes.is_set_aside(Origin(spec.name, number, record.offset, record.timestamp_ms))

    def _end_of(self, spec: TopicSpec, number: int) -> int:
        bounds = self._bounds[spec.name]
        return bounds[number][1] if bounds else 0

    async def _begin_of(self, group: str, spec: TopicSpec, number: int, *, tell: bool) -> int:
        """Where a group goes on: at its committed offset, or at the earliest there is."""
        if not self._bounds[spec.name]:
            return 0
        committed = (await self._source.log.committed(group, spec.name))[number]
        first = self._bounds[spec.name][number][0]
        lost = first - committed if committed is not None else 0
        if lost > 0 and tell:
            self.moved.expired += lost
            self._report(
                f"warning: {lost} records of {spec.name}[{number}] were deleted by retention before they "
                "were read"
            )
        return max(first, committed or 0)

    async def _unread_of(self, group: str, spec: TopicSpec, number: int) -> AsyncIterator[Stored]:
        begin = await self._begin_of(group, spec, number, tell=True)
        async for record in self._some(spec, number, begin, self._end_of(spec, number)):
            if self._is_set_aside(spec, number, record):
                self.moved.passed_over[spec.name] += 1
            else:
                yield record

    async def _all(self, spec: TopicSpec, number: int) -> AsyncIterator[Stored]:
        if self._bounds[spec.name]:
            async for record in self._some(spec, number, *self._bounds[spec.name][number]):
                yield record

    def _some(self, spec: TopicSpec, number: int, start: int, end: int) -> AsyncIterator[Stored]:
        return self._source.log.read(spec.name, number, start, end)
