"""An installation is moved from broker to broker; what is left behind is told, and nothing is half moved."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from integration.broker import installation
from integration.broker.buses import Bus
from integration.broker.installation import JOB, Told, inhabitants, moved, settle, side, values
from openanomaly.broker.faust_app import BrokerConfig, Row
from openanomaly.broker.migrate import Side
from openanomaly.broker.notes import CRASH, REPLAYED
from openanomaly.broker.offline import EmbeddedLog
from openanomaly.core.frames import SampleFrame
from openanomaly.core.series import partition_of
from openanomaly.core.windows import records
from openanomaly.core.windows.admission import Budget
from openanomaly.core.windows.partition import Partition
from openanomaly.core.windows.plan import plan
from openanomaly.errors import BrokerError, ConfigError
from openanomaly.pb.openanomaly.v1 import changelog_pb2, frames_pb2
from unit.core.windows import drive, scenario
from unit.core.windows.fleet import Fleet
from unit.core.windows.test_migrate import events, same_as_stayed
from unit.core.windows.world import Broker, Crash, Infer, Samples

SEED = 4


def fleet(partitions: int, until: int | None = None) -> Fleet:
    """Workers that have lived through a part of the scenario, and the last event halfway."""
    todo = events(SEED)
    until = len(todo) * 2 // 3 if until is None else until
    found = Fleet(scenario.pipelines(), [Broker() for _ in range(partitions)]).run(todo[:until])
    found.lose(todo[until], fuse=2)
    return found


@pytest.fixture(params=["embedded-kafka", "kafka-embedded", "kafka-kafka", "embedded-embedded"])
def route(request: pytest.FixtureRequest) -> tuple[Bus, Bus]:
    """From one broker to the other; from one to itself is from one prefix to another."""
    first, second = (request.getfixturevalue(f"{kind}_bus") for kind in request.param.split("-"))
    return first, second


@pytest.mark.parametrize("counts", [(3, 2), (2, 4), (2, 2)])
def test_workers_go_on_from_what_has_moved(route: tuple[Bus, Bus], counts: tuple[int, int]) -> None:
    todo = events(SEED)
    cut = len(todo) * 2 // 3
    before = fleet(counts[0], cut)
    now_ms = before.parts[0].broker.now_ms
    prefix = f"{route[0].config.topic_prefix}-{counts[0]}-{counts[1]}"

    async def go() -> Fleet:
        async with (
            side(route[0], counts[0], prefix) as source,
            side(route[1], counts[1], f"{prefix}-new") as to,
        ):
            await settle(source, before)
            found, _ = await moved(source, to)
            assert found.rows == before.series
            assert found.unreadable == found.expired == 0
            return await inhabitants(to, now_ms)

    after = asyncio.run(go())
    after.again(todo[cut])
    after.run(todo[cut + 1 :])
    same_as_stayed(SEED, before, after)


def on_embedded(work: Any, tmp_path: Path, partitions: int = 3, to: int = 2) -> Any:
    """Run `work(source, target, fleet)` on two embedded brokers, the first of which is lived in."""

    async def go() -> Any:
        one, two = (
            Bus("embedded", BrokerConfig(f"embedded://{tmp_path / name}", topic_prefix="oa"))
            for name in ("before", "after")
        )
        async with side(one, partitions) as source, side(two, to) as target:
            before = fleet(partitions)
            await settle(source, before)
            return await work(source, target, before)

    return asyncio.run(go())


def crash_note(topic: str, partition: int, offset: int, payload: bytes = b"", **more: Any) -> bytes:
    given = {"set_aside": True, "noted_ms": 1 << 45, "version": 1, "reason": CRASH, **more}
    letter = frames_pb2.DeadLetter(topic=topic, partition=partition, offset=offset, payload=payload, **given)
    return letter.SerializeToString()


def test_what_retention_took_is_told(tmp_path: Path) -> None:
    async def work(source: Side, target: Side, before: Fleet) -> Told:
        samples = source.topics.samples.name
        (_, end), *_ = await source.log.bounds(samples)
        committed = before.parts[0].broker.committed[0]
        assert committed + 2 < end
        assert isinstance(source.log, EmbeddedLog)
        broker = source.log.broker
        tp = broker._tp((samples, 0))
        await broker._on_writer(broker._store.delete_before, tp, committed + 2, broker._following[tp])
        found, told = await moved(source, target)
        assert found.expired == 2
        return told

    told = on_embedded(work, tmp_path)
    assert told.having("2 records of oa.samples[0] were deleted by retention before they were read")


def test_what_nobody_can_read_moves_as_it_is_and_what_was_set_aside_does_not(tmp_path: Path) -> None:
    async def work(source: Side, target: Side, before: Fleet) -> None:
        t = source.topics
        last = drive.frame([(f"series_{i}", 1_800_000_000_000, 1.0) for i in range(8)]).encode()
        odd = [(0, None, b"\xff odd"), (1, None, last), (2, None, last)]
        offsets = await source.log.write(t.samples.name, odd)
        note = crash_note(t.samples.name, 1, offsets[1], last)
        await source.log.write(t.dead_letter.name, [(0, None, note)])

        found, _ = await moved(source, target)

        held = await values(target, target.topics.samples)
        assert held[0].count(b"\xff odd") == 1
        parts = [SampleFrame.decode(v) for p in held for v in p if b"odd" not in v]
        again = [f for f in parts if f.timestamp_ms.size and f.timestamp_ms.max() == 1_800_000_000_000]
        assert sum(f.row.size for f in again) == 8, "one of two was set aside"
        assert found.unreadable == 1
        assert found.passed_over == {t.samples.name: 1}

    on_embedded(work, tmp_path)


def test_dead_letters_are_about_the_new_topics(tmp_path: Path) -> None:
    names = [f"series_{i}" for i in range(8)]
    payload = drive.frame([(name, 1_800_000_000_000, 1.0) for name in names]).encode()

    async def work(source: Side, target: Side, before: Fleet) -> list[frames_pb2.DeadLetter]:
        t = source.topics
        letters = [
            crash_note("oa.samples", 0, 5, set_aside=False),
            crash_note("oa.samples", 2, 7, payload, reason="MalformedFrameError"),
            crash_note("oa.forecasts", 2, 3, b"forecast"),
            crash_note("oa.scores", 2, 3, b"odd", reason="RejectedError"),
            crash_note("", 2, 0, reason=REPLAYED, letter=1, set_aside=False),
        ]
        await source.log.write(t.dead_letter.name, [(0, None, letter) for letter in letters])
        side_of = replace(target, topics=installation.topics("nu", target.partitions), prefix="nu")
        await moved(source, side_of)
        (held,) = await values(side_of, side_of.topics.dead_letter)
        return [frames_pb2.DeadLetter.FromString(value) for value in held]

    found = on_embedded(work, tmp_path)

    samples = [x for x in found if x.topic == "nu.samples"]
    assert {x.partition for x in samples} == {0, 1}
    for letter in samples:
        frame = SampleFrame.decode(letter.payload)
        assert (partition_of(frame.series.ids, 2) == letter.partition).all()
        assert (letter.offset, letter.reason) == (7, "MalformedFrameError")
    assert sum(SampleFrame.decode(x.payload).row.size for x in samples) == 8
    (forecast,) = (x for x in found if x.topic == "nu.forecasts")
    assert (forecast.payload, forecast.partition) == (b"", 0)
    assert forecast.detail.endswith("(first 0 of 8 bytes kept)")
    assert forecast.noted_ms < 1 << 45, "older than any record that has its offset now"
    (score,) = (x for x in found if x.topic == "nu.scores")
    assert (score.payload, score.partition) == (b"odd", 0)
    replays = [x for x in found if x.reason == REPLAYED]
    assert sorted(x.letter for x in replays) == [i for i, x in enumerate(found) if x in samples]


def test_what_no_pipeline_asks_for_is_told(tmp_path: Path) -> None:
    kept = [p for p in scenario.pipelines() if p.name == "all"]

    async def work(source: Side, target: Side, before: Fleet) -> Told:
        _, told = await moved(source, target, replace(JOB, plans=plan(kept)))
        return told

    told = on_embedded(work, tmp_path)
    assert len(told.having("rows are left behind, since no pipeline here has their windows")) == 1
    assert len(told.having("knew is left behind, since no pipeline here is its owner")) == 1


def test_records_of_a_newer_release_are_refused(tmp_path: Path) -> None:
    async def work(source: Side, target: Side, before: Fleet) -> None:
        (uid, *_) = (p.spec.uid for p in installation.PLANS)
        later = records.VERSION + 1
        page = changelog_pb2.CataloguePage(version=later, block=uid).SerializeToString()
        row: Row = (1, records.key(records.CATALOGUE, uid, 0), page)
        await source.log.write(source.state.name, [row])
        text = rf"oa-window-state-changelog\[1\].*version {later}.*reads up to {records.VERSION}"
        with pytest.raises(ConfigError, match=text):
            await moved(source, target)

    on_embedded(work, tmp_path)


class Shared(EmbeddedLog):
    """A broker on which somebody else writes, as soon as we do, or read."""

    def __init__(self, real: EmbeddedLog, topic: str) -> None:
        super().__init__(real.config, "made")
        self._broker = real._broker
        self._real, self._topic, self.is_quiet = real, topic, False

    async def _intrude(self, topic: str) -> None:
        if topic == self._topic and not self.is_quiet:
            self.is_quiet = True
            await self._real.write(topic, [(0, None, b"somebody else's")])

    async def write(self, topic: str, rows: Sequence[Row]) -> list[int]:
        await self._intrude(topic)
        return await super().write(topic, rows)

    async def committed(self, group: str, topic: str) -> list[int | None]:
        await self._intrude(topic)
        return await super().committed(group, topic)


@pytest.mark.parametrize("where", ["source", "target"])
def test_who_is_not_alone_does_not_finish(tmp_path: Path, where: str) -> None:
    async def work(source: Side, target: Side, before: Fleet) -> None:
        assert isinstance(source.log, EmbeddedLog)
        assert isinstance(target.log, EmbeddedLog)
        if where == "source":
            source = replace(source, log=Shared(source.log, source.topics.samples.name))
            text = r"1 records came to oa.samples\[0\].*stop its receivers"
        else:
            target = replace(target, log=Shared(target.log, target.topics.scores.name))
            text = "somebody else writes to oa.scores"
        with pytest.raises(BrokerError, match=text):
            await moved(source, target)
        with pytest.raises(ConfigError, match="has a part of what was moved there from"):
            await moved(source, target)

    on_embedded(work, tmp_path)


class Mortal(EmbeddedLog):
    """A broker whose user is lost before its `left`-th change."""

    def __init__(self, real: EmbeddedLog, left: int) -> None:
        super().__init__(real.config, "made")
        self._broker = real._broker
        self.left = left

    def _live(self) -> None:
        if self.left == 0:
            raise Crash
        self.left -= 1

    async def write(self, topic: str, rows: Sequence[Row]) -> list[int]:
        self._live()
        return await super().write(topic, rows)

    async def commit(self, group: str, offsets: Any) -> None:
        self._live()
        await super().commit(group, offsets)


def test_wherever_it_ends_nobody_starts_on_a_part(tmp_path: Path) -> None:
    async def attempt(source: Side, number: int) -> bool:
        """Whether it came to its end."""
        bus = Bus("embedded", BrokerConfig(f"embedded://{tmp_path / f'after-{number}'}", topic_prefix="oa"))
        async with side(bus, 2) as target:
            assert isinstance(target.log, EmbeddedLog)
            mortal = Mortal(target.log, number)
            try:
                await moved(source, replace(target, log=mortal))
            except Crash:
                # Lost before its first change it has left nothing: that is no part of anything.
                refused = number > 0
            else:
                refused = False
            for p, bounds in enumerate(await target.log.bounds(target.state.name)):
                partition = Partition(p, installation.PLANS, Budget(10_000))
                async for record in target.log.read(target.state.name, p, *bounds):
                    partition.restore(record.key or b"", record.value or b"")
                with pytest.raises(BrokerError) if refused else contextlib.nullcontext():
                    partition.start()
            return mortal.left > 0

    async def work(source: Side, target: Side, before: Fleet) -> int:
        number = 0
        while not await attempt(source, number):
            number += 1
        return number

    assert on_embedded(work, tmp_path) > 10


def test_topics_of_another_number_of_partitions_are_in_the_way(tmp_path: Path) -> None:
    async def work(source: Side, target: Side, before: Fleet) -> None:
        await target.log.create([replace(target.topics.due, partitions=7)])
        with pytest.raises(ConfigError, match=r"oa\.due has 7 partitions .* 2 are wanted"):
            await moved(source, target)

    on_embedded(work, tmp_path)


def test_a_partition_without_a_past_moves_too(tmp_path: Path) -> None:
    """Samples came, and no window worker has ever run."""
    todo = [e for e in events(SEED)[:40] if not isinstance(e, Infer)]

    async def go() -> None:
        bus = Bus("embedded", BrokerConfig(f"embedded://{tmp_path / 'one'}", topic_prefix="oa"))
        async with side(bus, 1) as source, side(bus, 3, "nu") as target:
            await source.log.create([source.topics.samples])
            sent = [e.frame for e in todo if isinstance(e, Samples)]
            await source.log.write(source.topics.samples.name, [(0, None, frame) for frame in sent])
            found, _ = await moved(source, target)
            assert found.samples == sum(SampleFrame.decode(frame).row.size for frame in sent) > 0
            assert found.rows == 0

    asyncio.run(go())


def test_topics_to_delete_are_named(embedded_bus: Bus, kafka_bus: Bus) -> None:
    """Kafka has no folder that could be moved away."""
    prefix = kafka_bus.config.topic_prefix

    async def go() -> None:
        async with side(embedded_bus, 2) as source, side(kafka_bus, 2) as target:
            await settle(source, fleet(2))
            await moved(source, target)
            with pytest.raises(ConfigError) as refused:
                await moved(source, target)
            topics = {spec.name for spec in target.specs}
            assert {f"{prefix}.samples", f"{prefix}-window-state-changelog"} < topics
            assert all(name in str(refused.value) for name in topics)

    asyncio.run(go())
