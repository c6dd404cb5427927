"""Workers of several partitions that live through the same events, and their move to others."""

from collections.abc import Iterable, Sequence

from openanomaly.core.frames import SampleFrame
from openanomaly.core.pipelines.pipeline import Pipeline
from openanomaly.core.windows import migrate
from openanomaly.core.windows.admission import Budget
from openanomaly.core.windows.output import Output
from openanomaly.core.windows.partition import Partition
from openanomaly.core.windows.plan import plan
from unit.core.windows import world
from unit.core.windows.world import Broker, Crash, Event, Infer, Play, Samples, Worker


class _Part(Play):
    """A worker on a partition that may have a past."""

    def __init__(self, pipelines: Sequence[Pipeline], broker: Broker) -> None:
        self.pipelines, self.fuses, self.broker, self.lives = pipelines, [], broker, 0
        self.worker = self._begin()

    def lose(self, event: Event, fuse: int) -> None:
        """An event that the worker may not survive; nobody comes after it."""
        if isinstance(event, Samples):
            self.broker.samples.append(event.frame)
        elif isinstance(event, Infer):
            self.broker.answer(event.frames)
        self.broker.fuse = fuse
        try:
            self.worker.drain()
            self._happen(event)
        except Crash:
            pass
        self.broker.fuse = -1


class Fleet:
    """Partitions side by side."""

    def __init__(self, pipelines: Sequence[Pipeline], brokers: Iterable[Broker]) -> None:
        self.pipelines = pipelines
        self.parts = [_Part(pipelines, broker) for broker in brokers]

    def run(self, events: Iterable[Event]) -> "Fleet":
        for event in events:
            for part, mine in self._each(event):
                part.run([mine])
        return self

    def lose(self, event: Event, fuse: int) -> None:
        for part, mine in self._each(event):
            part.lose(mine, fuse)

    def again(self, event: Event) -> None:
        """What was to happen when the workers before us were lost."""
        for part in self.parts:
            part.worker.drain()
            part._happen(event)

    def _each(self, event: Event) -> Iterable[tuple[_Part, Event]]:
        if not isinstance(event, Samples):
            return [(part, event) for part in self.parts]
        split = migrate.split_samples(SampleFrame.decode(event.frame), len(self.parts))
        return [(self.parts[number], Samples(frame.encode())) for number, frame in split]

    def said(self) -> dict[object, object]:
        out: dict[object, object] = {}
        for part in self.parts:
            for key, said in part.broker.said().items():
                assert out.setdefault(key, said) == said
        return out

    def known(self) -> dict[object, dict[str, bytes]]:
        out: dict[object, dict[str, bytes]] = {}
        for part in self.parts:
            for series, known in world.rows(part.partition).items():
                assert series not in out, "a series is in one partition"
                out[series] = known
        return out

    @property
    def series(self) -> int:
        return sum(part.partition.series for part in self.parts)

    def moved(self, partitions: int) -> "Fleet":
        """The same series in other partitions, made from what our brokers hold."""
        plans = plan(self.pipelines)
        targets = [Partition(t, plans, Budget(10_000)) for t in range(partitions)]
        brokers = [Broker(now_ms=self.parts[0].broker.now_ms) for _ in targets]
        for part in self.parts:
            old = part.broker
            source = restored(old, self.pipelines)
            said = repeat(source, old)
            for frame in said.scores:
                for t, mine in migrate.split_scores(frame, partitions):
                    brokers[t].scores.append(mine)
            places = {uid: migrate.Places(block) for uid, block in source.blocks.items()}
            for target in targets:
                migrate.move(source, target, partitions, places)
            for value in old.samples[source.position.samples :]:
                for t, samples in migrate.split_samples(SampleFrame.decode(value), partitions):
                    brokers[t].samples.append(samples.encode())
            for due in (*old.due[old.answered :], *said.due):
                for again in migrate.split_due(due, places[due.block]):
                    brokers[again.partition].due.append(again)
        for target, broker in zip(targets, brokers, strict=True):
            broker.state += [*migrate.catalogue_records(target), *migrate.state_records(target)]
            broker.ring += migrate.ring_records(target)
            broker.forecasts += [frame.encode() for frame in migrate.forecast_frames(target)]
            broker.written_ms += [broker.now_ms] * len(broker.forecasts)
        return Fleet(self.pipelines, brokers)


def restored(broker: Broker, pipelines: Sequence[Pipeline]) -> Partition:
    """The partition as its records tell, at the offsets that were committed."""
    return Worker(broker, pipelines, limit=0).partition


def repeat(partition: Partition, broker: Broker) -> Output:
    """Its run once more, and the forecasts behind it; what the run said."""
    run = migrate.Repeat(partition)
    out = run.go_on(0)
    while (topic := run.wants()) is not None:
        offset = getattr(partition.position, topic)
        log = getattr(broker, topic)
        assert offset < len(log), "a mark is of what is there"
        written_ms = broker.written_ms[offset] if topic == "forecasts" else 0
        out.add(run.give(topic, offset, log[offset], written_ms, 0))
    for offset in range(partition.position.forecasts, len(broker.forecasts)):
        run.give("forecasts", offset, broker.forecasts[offset], broker.written_ms[offset], 0)
    return out
