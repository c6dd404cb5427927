"""The installation that is filled: empty before, refused by everybody meanwhile, complete at the end."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from openanomaly.broker.faust_app import Row
from openanomaly.broker.migrate_sides import Moved, Reader, Side
from openanomaly.broker.topics import TopicSpec
from openanomaly.core.windows import records
from openanomaly.core.windows.records import Record
from openanomaly.errors import BrokerError, ConfigError

_BATCH_BYTES = 8 << 20


class Target:
    """Appends in batches; nobody else may."""

    def __init__(self, side: Side, moved: Moved, *, is_dry: bool) -> None:
        self.topics, self.partitions = side.topics, side.partitions
        self.side = side
        self._moved, self._is_dry = moved, is_dry
        self._waiting: dict[str, list[Row]] = defaultdict(list)
        self._waiting_bytes = 0
        self._next: Counter[tuple[str, int]] = Counter()

    # -- before and after --------------------------------------------------------------------------

    async def check_empty(self) -> None:
        """Raises:
        ConfigError: it has had records, or topics of another number of partitions.
        """
        log = self.side.log
        for spec in self.side.specs:
            bounds = await log.bounds(spec.name)
            if any(end > 0 for _, end in bounds):
                raise ConfigError(await self._why_not_empty(spec))
            if bounds and len(bounds) != spec.partitions:
                raise ConfigError(
                    f"topic {spec.name} has {len(bounds)} partitions in {log}, and {spec.partitions} are "
                    f"wanted: delete it, or use --partitions {len(bounds)}"
                )

    async def _why_not_empty(self, spec: TopicSpec) -> str:
        log = self.side.log
        names = ", ".join(each.name for each in self.side.specs)
        where = (
            f"move the folder of {log} away"
            if log.config.is_embedded
            else f"delete these topics with kafka-topics: {names}"
        )
        if (begun := await self._begun_from()) is not None:
            return (
                f"{log} has a part of what was moved there from {begun}: that did not come to its end. The "
                f"source still has all of it. To begin anew, {where}"
            )
        return (
            f"topic {spec.name} in {log} has had records: history can only be moved to where there is none. "
            f"Use another --target-prefix or another broker; or, to lose what is there, {where}"
        )

    async def _begun_from(self) -> str | None:
        """From where a move began that has not ended."""
        log, state = self.side.log, self.side.state.name
        for number, bounds in enumerate(await log.bounds(state)):
            begun = None
            async for record in log.read(state, number, *bounds):
                if record.key == records.key(records.MOVE, 0, 0) and record.value is not None:
                    begun = records.restore_move(record.value)
            if begun is not None:
                return begun
        return None

    async def begin(self, source: str) -> None:
        """Whoever starts here from now on, and until the end, is refused."""
        if not self._is_dry:
            await self.side.log.create(self.side.specs)
            await self._mark(source, is_complete=False)

    async def finish(self, source: str) -> None:
        """Every group begins with what was moved; then it is complete."""
        await self.flush()
        if self._is_dry:
            return
        t = self.topics
        reads: dict[Reader, tuple[TopicSpec, ...]] = {
            "window": (t.samples, t.forecasts),
            "infer": (t.due,),
            "sink": (t.scores,),
        }
        for role, specs in reads.items():
            begin = {(spec.name, p): 0 for spec in specs for p in range(spec.partitions)}
            await self.side.log.commit(self.side.group(role), begin)
        await self._mark(source, is_complete=True)

    async def _mark(self, source: str, *, is_complete: bool) -> None:
        mark = records.move_record(source, is_complete=is_complete)
        for number in range(self.partitions):
            await self.add(self.side.state, number, mark.value, mark.key)
        await self.flush()

    # -- records -----------------------------------------------------------------------------------

    async def add(self, topic: TopicSpec, partition: int, value: bytes, key: bytes | None = None) -> None:
        """Write a record, with others, sooner or later."""
        self._waiting[topic.name].append((partition, key, value))
        size = len(key or b"") + len(value)
        self._waiting_bytes += size
        self._moved.records += 1
        self._moved.size_bytes += size
        if self._waiting_bytes >= _BATCH_BYTES:
            await self.flush()

    async def add_all(self, topic: TopicSpec, partition: int, some: Iterable[Record]) -> None:
        for key, value in some:
            await self.add(topic, partition, value, key)

    async def flush(self) -> None:
        """Returns once everything is durable.

        Raises:
            BrokerError: somebody else writes here.
        """
        waiting, self._waiting = self._waiting, defaultdict(list)
        self._waiting_bytes = 0
        for topic, rows in waiting.items() if not self._is_dry else ():
            offsets = await self.side.log.write(topic, rows)
            for (partition, _, _), offset in zip(rows, offsets, strict=True):
                # Kafka says -1 of a record that it had already when it came again.
                if offset not in (self._next[topic, partition], -1):
                    raise BrokerError(
                        f"somebody else writes to {topic} in {self.side.log} while it is being filled: stop "
                        "every role there, delete what was written and migrate again"
                    )
                self._next[topic, partition] += 1
