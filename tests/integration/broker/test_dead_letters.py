"""What was set aside is shown with its reason, is put back when it can be used, and then is used."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dues import due_frame
from integration.broker.buses import Bus, running
from integration.broker.test_poisoned_records import (
    MARK,
    InferenceRoom,
    SinkRoom,
    WindowRoom,
    break_encoding,
    committed,
    crash,
    end,
    letters,
    names,
    records,
)
from messages import named
from openanomaly.broker.dead_letter import DeadLetters
from openanomaly.broker.faust_app import declare, make_app
from openanomaly.broker.letters import Letters
from openanomaly.core import frames
from openanomaly.core.frames import ForecastFrame
from openanomaly.core.letters import Filter, Letter
from openanomaly.pb.openanomaly.v1 import frames_pb2 as pb
from scores import NOW_MS, score_frame
from targets import Target, refuse_values
from unit.core.windows import drive


@contextlib.asynccontextmanager
async def desk(bus: Bus) -> AsyncIterator[Letters]:
    """The letters as a process sees them that does nothing but answer."""
    app = make_app("ingest", bus.config)
    found = names(bus)
    for spec in (found.samples, found.due, found.forecasts, found.scores):
        declare(app, spec)
    at = Letters(app, found)
    async with running(app):
        yield at


async def listed(bus: Bus, wanted: Filter | None = None) -> list[Letter]:
    async with desk(bus) as at:
        return await at.find(wanted or Filter(), 100)


def of_version(record: bytes, message: Any, version: int) -> bytes:
    """The record as a newer release might write it."""
    found = message.FromString(record)
    found.version = version
    content: bytes = found.SerializeToString()
    return content


def scores(host: str, score: float = 2.0) -> bytes:
    return score_frame([named("load", host=host)], score=[score]).encode()


def test_scores_of_a_newer_release_are_set_aside_shown_and_written_after_the_upgrade(
    durable_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        bus, spec = durable_bus, names(durable_bus).scores
        newer = of_version(scores("h1"), pb.ScoreFrame, 2)
        await bus.write(spec, [(0, None, x) for x in (scores("h0"), newer, scores("h2"))])
        async with Target().running() as target:
            room = SinkRoom(bus, target)
            await end(room, lambda: len(target.taken) == 2)
            assert await committed(bus, room, spec) == 3

            (letter,) = await listed(bus)
            assert (letter.topic, letter.partition, letter.offset) == (spec.name, 0, 1)
            assert (letter.reason, letter.set_aside, letter.obstacle) == ("UnknownVersionError", True, None)
            assert "ScoreFrame has version 2, this release reads up to 1" in letter.detail
            assert letter.payload_bytes == len(newer)
            assert letter.payload == {"kind": "ScoreFrame", "unreadable": letter.detail}

            monkeypatch.setattr(frames, "VERSION", 2)
            async with desk(bus) as at:
                assert [x.outcome for x in await at.replay([letter.id], dry_run=True)] == ["possible"]
                (done,) = await at.replay([letter.id])
            assert (done.outcome, done.topic, done.partition, done.offset) == ("replayed", spec.name, 0, 3)
            after = SinkRoom(bus, target)
            await end(after, lambda: len(target.taken) == 3)
            assert await committed(bus, after, spec) == 4
            assert [dict(x)["host"] for x, _, _ in target.taken] == ["h0", "h2", "h1"]
            assert (await records(bus, spec))[3] == newer

            (letter,) = await listed(bus)
            assert [replay.offset for replay in letter.replays] == [3]
            assert letter.payload is not None
            assert (letter.payload["pipeline"], letter.payload["series"], letter.payload["samples"]) == (
                "default",
                1,
                1,
            )
            async with desk(bus) as at:
                (again,) = await at.replay([letter.id])
                assert (again.outcome, again.offset) == ("refused", None)
                assert "replayed before, as offset 3" in again.why
                (forced,) = await at.replay([letter.id], force=True)
            assert (forced.outcome, forced.offset) == ("replayed", 4)
            (letter,) = await listed(bus)
            assert [replay.offset for replay in letter.replays] == [3, 4]

    asyncio.run(go())


def test_samples_of_a_newer_release_reach_windows_after_the_upgrade(
    durable_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where their series went on meanwhile: then they are counted as too late, as any others."""

    async def go() -> None:
        bus, spec = durable_bus, names(durable_bus).samples
        first_ms = int(time.time()) * 1000 - 60_000  # not so old that a tick evicts the series
        times_ms = [first_ms + i * 10_000 for i in range(4)]
        written = [drive.frame([("a", ms, float(i))], ms).encode() for i, ms in enumerate(times_ms)]
        other = drive.frame([("b", first_ms, 1.0)], first_ms).encode()
        newer = [of_version(x, pb.SampleFrame, 3) for x in (written[1], other)]
        await bus.write(spec, [(0, None, x) for x in (written[0], *newer, written[2], written[3])])
        room = WindowRoom(bus)
        await end(room, lambda: room.position()[0] == 5)
        assert room.rejected(topic="samples") == 2
        found = await listed(bus, Filter(topic="samples", reason="UnknownVersionError"))
        assert [x.offset for x in found] == [2, 1]

        monkeypatch.setattr(frames, "OF_GROUPS", 3)
        async with desk(bus) as at:
            done = await at.replay([x.id for x in found])
        assert [x.offset for x in done] == [5, 6]  # the older letter first
        after = WindowRoom(bus)
        await end(after, lambda: after.position()[0] == 7)
        counts = after.worker.counts()
        assert after.rejected(topic="samples") == 0
        assert counts["in"] == 2
        assert counts["late"] + counts["out_of_order"] == 1  # of `a`, which had gone on
        assert after.worker.partitions[0].series == 2  # `b` is new
        assert len(await listed(bus)) == 2

    asyncio.run(go())


def test_contexts_of_a_newer_release_are_forecast_after_the_upgrade(
    embedded_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        bus, due = embedded_bus, names(embedded_bus).due
        value = of_version(due_frame(3, partition=0).encode(), pb.DueFrame, 2)
        await bus.write(due, [(0, None, value)])
        room = InferenceRoom(bus)
        await end(room, lambda: room.rejected() == 1)
        monkeypatch.setattr(frames, "VERSION", 2)
        (letter,) = await listed(bus)
        assert letter.payload is not None
        assert (letter.payload["kind"], letter.payload["series"], letter.payload["model"]) == (
            "DueFrame",
            3,
            "auto",
        )
        async with desk(bus) as at:
            await at.replay([letter.id])
        async with running(InferenceRoom(bus).app), asyncio.timeout(20):
            while not (found := await records(bus, names(bus).forecasts)):  # noqa: ASYNC110 (nothing tells)
                await asyncio.sleep(0.05)
        assert ForecastFrame.decode(found[0]).row.tolist() == [3, 4, 5]

    asyncio.run(go())


def test_scores_that_a_target_refused_are_written_once_it_takes_them(durable_bus: Bus) -> None:
    """Only those that were refused: the others of their record were written."""

    async def go() -> None:
        bus, spec = durable_bus, names(durable_bus).scores
        record = score_frame([named("load", host=f"h{i}") for i in range(3)], score=[1.0, MARK, 3.0])
        await bus.write(spec, [(0, None, record.encode())])
        async with Target(script=refuse_values([MARK])).running() as target:
            room = SinkRoom(bus, target)
            await end(room, lambda: len(target.taken) == 2)
            while not (found := await listed(bus)):  # noqa: ASYNC110 (nothing tells)
                await asyncio.sleep(0.05)
            (letter,) = found
            assert letter.payload is not None
            assert letter.payload["samples"] == 1
            assert "1 of 3 scores" in letter.detail
            target.script = []
            async with desk(bus) as at:
                await at.replay([letter.id])
            await end(SinkRoom(bus, target), lambda: len(target.taken) == 3)
            assert [dict(x)["host"] for x, _, _ in target.taken] == ["h0", "h2", "h1"]

    asyncio.run(go())


def test_a_record_that_crashed_its_worker_is_tried_anew_when_it_is_replayed(
    durable_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notes of its first life are of another offset: it has three tries again, and may succeed."""

    async def go() -> None:
        bus, spec = durable_bus, names(durable_bus).scores
        await bus.write(spec, [(0, None, x) for x in (scores("h0", MARK), scores("h1"))])
        with monkeypatch.context() as patched:
            break_encoding(patched)
            async with Target().running() as target:
                for _ in range(3):
                    await crash(SinkRoom(bus, target))
                await end(SinkRoom(bus, target), lambda: len(target.taken) == 1)
                first = await listed(bus)
                assert [(x.reason, x.set_aside) for x in first] == [
                    ("crash", True),
                    ("crash", False),
                    ("crash", False),
                ]
                assert "BugError: a bug of ours" in first[0].detail
                # Who looks at the record meets the same bug.
                assert first[0].payload == {"kind": "ScoreFrame", "unreadable": "BugError: a bug of ours"}
                assert [x.id for x in await listed(bus, Filter(set_aside=False))] == [1, 0]
                async with desk(bus) as at:
                    done = await at.replay([x.id for x in first])
                assert [x.outcome for x in done] == ["refused", "refused", "replayed"]
                assert "not set aside but tried again" in done[0].why

                # The bug is still there: the replayed record crashes its workers as a record of its own.
                for _ in range(3):
                    await crash(SinkRoom(bus, target))
                room = SinkRoom(bus, target)
                await end(room, lambda: room.rejected() == 1)
                second = [x for x in await listed(bus) if x.offset == 2]
                assert [x.set_aside for x in second] == [True, False, False]
        async with Target().running() as target:
            async with desk(bus) as at:
                (done_again,) = await at.replay([second[0].id])
            assert done_again.offset == 3
            await end(SinkRoom(bus, target), lambda: len(target.taken) == 1)
            assert [(dict(x)["host"], score) for x, _, score in target.taken] == [("h0", MARK)]
        assert len(await letters(bus)) == 3 + 1 + 3 + 1

    asyncio.run(go())


def test_what_cannot_be_replayed_says_why_and_nothing_is_written(embedded_bus: Bus) -> None:
    async def go() -> None:
        bus, spec = embedded_bus, names(embedded_bus).scores
        app = make_app("sink", bus.config)
        at = DeadLetters(app, names(bus))
        cases = [
            (spec.name, 0, b"x" * 1_000_000, "first 934464 of 1000000 bytes kept"),
            ("elsewhere.scores", 0, b"x", "no topic 'elsewhere.scores' is read here"),
            (spec.name, 99, b"x", "has 4 partitions, the letter is of number 99"),
        ]
        async with running(app):
            for topic, partition, value, _ in cases:
                await at.set_aside(topic, partition, 5, None, value, "detail", "MalformedFrameError")
        newer = pb.DeadLetter(version=2, reason="x", topic=spec.name, set_aside=True, noted_ms=NOW_MS)
        foreign = [(0, None, newer.SerializeToString()), (0, None, b"\xff\xff not a letter")]
        await bus.write(names(bus).dead_letter, foreign)
        async with desk(bus) as at_desk:
            outcomes = await at_desk.replay(range(7), force=True)
        whys = [case[3] for case in cases] + ["written by a newer release", "it is not a dead letter"]
        for outcome, why in zip(outcomes[:5], whys, strict=True):
            assert outcome.outcome == "refused"
            assert why in outcome.why
        assert [x.outcome for x in outcomes[5:]] == ["unknown", "unknown"]
        assert await records(bus, spec) == []
        found = await listed(bus)
        assert [x.id for x in found] == [4, 3, 2, 1, 0]
        assert all(
            x.obstacle in y.why for x, y in zip(reversed(found), outcomes[:5], strict=True) if x.obstacle
        )
        assert found[0].reason == "unreadable"

    asyncio.run(go())


def test_letters_are_found_newest_first_by_page_and_filter(durable_bus: Bus) -> None:
    async def go() -> None:
        bus, spec = durable_bus, names(durable_bus)
        values = [
            pb.DeadLetter(
                version=1,
                reason="A" if i % 2 else "B",
                topic=(spec.scores if i % 3 else spec.due).name,
                offset=i,
                set_aside=i % 5 != 0,
                noted_ms=NOW_MS + i,
            ).SerializeToString()
            for i in range(700)
        ]
        await bus.write(spec.dead_letter, [(0, None, x) for x in values])
        async with desk(bus) as at:

            async def ids(limit: int = 1000, **wanted: Any) -> list[int]:
                return [x.id for x in await at.find(Filter(**wanted), limit)]

            assert await ids(3) == [699, 698, 697]
            assert await ids() == list(range(699, -1, -1))
            assert await ids(2, before=300) == [299, 298]
            assert await ids(before=2) == [1, 0]
            assert await ids(2, reason="A") == [699, 697]
            assert await ids(2, topic=spec.due.name) == [699, 696]
            assert await ids(2, topic="due", reason="A") == [699, 693]
            assert await ids(2, set_aside=False) == [695, 690]
            assert await ids(since_ms=NOW_MS + 690) == list(range(699, 689, -1))
            found = await at.get(123)
            assert found is not None
            assert found[0].offset == 123
            assert await at.get(700) is None
        await bus.delete_before(spec.dead_letter.name, {0: 650})
        async with desk(bus) as at:
            assert len(await at.find(Filter(), 1000)) == 50
            assert await at.get(123) is None
            assert (await at.replay([123]))[0].outcome == "unknown"

    asyncio.run(go())


def test_more_letters_than_are_looked_through(embedded_bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openanomaly.broker.letters.REACH", 300)

    async def go() -> None:
        bus, spec = embedded_bus, names(embedded_bus)
        value = pb.DeadLetter(version=1, topic=spec.scores.name, set_aside=True, payload=b"x")
        await bus.write(spec.dead_letter, [(0, None, value.SerializeToString())] * 1000)
        async with desk(bus) as at:
            assert [x.id for x in await at.find(Filter(), 5000)] == list(range(999, 699, -1))
            assert await at.get(699) is None
            outcomes = await at.replay([699, 700])
            assert [x.outcome for x in outcomes] == ["unknown", "replayed"]

    asyncio.run(go())


def test_replays_end_with_the_first_that_the_broker_does_not_take(
    embedded_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go back in their order or not at all, and the answer says which did."""

    async def go() -> None:
        bus, spec = embedded_bus, names(embedded_bus)
        samples = pb.DeadLetter(version=1, topic=spec.samples.name, set_aside=True, payload=b"x" * 100)
        other = pb.DeadLetter(version=1, topic=spec.scores.name, set_aside=True, payload=b"y")
        values = [x.SerializeToString() for x in (other, samples, other)]
        await bus.write(spec.dead_letter, [(0, None, x) for x in values])
        async with desk(bus) as at:
            broker = at._app.producer_transport.broker
            full = broker.disk_limit_bytes
            broker.disk_limit_bytes = int(broker._used_bytes / 0.85) + 1
            outcomes = await at.replay([0, 1, 2])
            broker.disk_limit_bytes = full
            assert [x.outcome for x in outcomes] == ["replayed", "failed", "failed"]
            assert "cannot append" in outcomes[1].why
            assert "not tried" in outcomes[2].why
            assert [x.outcome for x in await at.replay([1, 2])] == ["replayed", "replayed"]
        assert len(await records(bus, spec.scores)) == 2

    asyncio.run(go())
