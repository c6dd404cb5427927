"""An installation without processes: what workers that lived through a scenario left on a real broker."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

from integration.broker.buses import Bus
from openanomaly.broker.faust_app import Row
from openanomaly.broker.migrate import Job, Moved, Side, migrate
from openanomaly.broker.offline import Log, open_log
from openanomaly.broker.topics import TopicSpec, topics
from openanomaly.core.frames import DueFrame, ScoreFrame
from openanomaly.core.windows.plan import plan
from openanomaly.core.windows.records import Record
from unit.core.windows import scenario
from unit.core.windows.fleet import Fleet
from unit.core.windows.world import Broker

PLANS = plan(scenario.pipelines())
JOB = Job(PLANS, emit="all")


@contextlib.asynccontextmanager
async def side(bus: Bus, partitions: int, prefix: str | None = None) -> AsyncIterator[Side]:
    """The installation of a bus, or a second one beside it."""
    prefix = prefix or bus.config.topic_prefix
    async with open_log(bus.config, "made") as log:
        yield Side.of(log, prefix, topics(prefix, partitions), PLANS)


async def settle(side: Side, fleet: Fleet) -> None:
    """Write what the fleet's workers have written, and what they were given."""
    log, t = side.log, side.topics
    assert side.partitions == len(fleet.parts)
    await log.create(side.specs)
    for p, part in enumerate(fleet.parts):
        held = part.broker
        due = [replace(frame, partition=p).encode() for frame in held.due]
        await _write(log, t.samples, p, held.samples)
        await _write(log, t.forecasts, p, held.forecasts)
        await _write(log, t.scores, p, [frame.encode() for frame in held.scores])
        await _write(log, t.due, p, due)
        for spec, records in ((side.ring, held.ring), (side.state, held.state)):
            if records:
                await log.write(spec.name, [(p, *record) for record in records])
        taken = dict(zip((t.samples.name, t.forecasts.name), held.committed, strict=True))
        await log.commit(side.group("window"), {(name, p): offset for name, offset in taken.items()})
        await log.commit(side.group("infer"), {(t.due.name, p): held.answered})


async def _write(log: Log, spec: TopicSpec, partition: int, values: list[bytes]) -> None:
    if values:
        rows: list[Row] = [(partition, None, value) for value in values]
        await log.write(spec.name, rows)


async def values(side: Side, spec: TopicSpec) -> list[list[bytes]]:
    """All values that a topic holds, by partition."""
    out = []
    for number, bounds in enumerate(await side.log.bounds(spec.name)):
        out.append([r.value or b"" async for r in side.log.read(spec.name, number, *bounds)])
    return out


async def inhabitants(side: Side, now_ms: int) -> Fleet:
    """Workers that go on from what the broker holds."""
    t = side.topics
    brokers = [Broker(now_ms=now_ms) for _ in range(side.partitions)]
    for name, group in ((t.samples, "window"), (t.forecasts, "window"), (t.due, "infer"), (t.scores, "sink")):
        begin = await side.log.committed(side.group(group), name.name)
        assert begin == [0] * side.partitions
    samples, forecasts = await values(side, t.samples), await values(side, t.forecasts)
    due, scores = await values(side, t.due), await values(side, t.scores)
    for p, broker in enumerate(brokers):
        broker.samples, broker.forecasts = samples[p], forecasts[p]
        broker.written_ms = [now_ms] * len(forecasts[p])
        broker.due = [DueFrame.decode(value) for value in due[p]]
        broker.scores = [ScoreFrame.decode(value) for value in scores[p]]
        for spec, log in ((side.ring, broker.ring), (side.state, broker.state)):
            bounds = (await side.log.bounds(spec.name))[p]
            async for r in side.log.read(spec.name, p, *bounds):
                if r.key is not None and r.value is not None:
                    log.append(Record(r.key, r.value))
    return Fleet(scenario.pipelines(), brokers)


class Told(list[str]):
    """What a migration reports."""

    def having(self, text: str) -> list[str]:
        return [line for line in self if text in line]


async def moved(source: Side, target: Side, job: Job = JOB) -> tuple[Moved, Told]:
    told = Told()
    return await migrate(source, target, job, told.append), told
