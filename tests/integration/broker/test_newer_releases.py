"""What a newer release wrote: frames are set aside and the rest goes on, a changelog stops its worker."""

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dues import HORIZON, due_frame
from integration.broker.buses import Bus, running
from integration.broker.test_poisoned_records import InferenceRoom, SinkRoom, WindowRoom, end, letters, names
from messages import named
from openanomaly.broker.faust_app import Row
from openanomaly.broker.topics import TopicSpec
from openanomaly.core.frames import ForecastFrame
from openanomaly.core.windows import records
from openanomaly.errors import ConfigError
from openanomaly.pb.openanomaly.v1 import changelog_pb2 as changelog
from openanomaly.pb.openanomaly.v1 import frames_pb2 as pb
from scores import NOW_MS, score_frame
from targets import Target
from unit.core.windows import drive


def newer(record: bytes, message: Any, version: int) -> bytes:
    """The record as a newer release may write it: another version, and a field that we do not know."""
    found = message.FromString(record)
    found.version = version
    content: bytes = found.SerializeToString()
    return content + b"\xfa\x3e\x03new"


# -- frames ----------------------------------------------------------------------------------------


def forecast(first: int) -> bytes:
    levels = np.array([0.1, 0.5, 0.9], np.float32)
    due = due_frame(first, partition=0)
    return ForecastFrame.pack(due, levels, np.zeros((3, HORIZON, 3), np.float32)).encode()


def sample(step: int) -> bytes:
    return drive.frame([("a", NOW_MS + step * 10_000, 1.0)], NOW_MS).encode()


FRAMES: dict[str, tuple[Callable[[int], bytes], Any, int]] = {
    "samples": (sample, pb.SampleFrame, 2),
    "forecasts": (forecast, pb.ForecastFrame, 1),
    "due": (lambda i: due_frame(3 * i, partition=0).encode(), pb.DueFrame, 1),
    "scores": (lambda i: score_frame([named("load", host=f"h{i}")]).encode(), pb.ScoreFrame, 1),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_a_frame_of_a_newer_release_is_set_aside_and_the_rest_goes_on(durable_bus: Bus, kind: str) -> None:
    async def go() -> None:
        bus = durable_bus
        spec: TopicSpec = getattr(names(bus), kind)
        make, message, ours = FRAMES[kind]
        values = [make(0), newer(make(1), message, ours + 1), make(2)]
        await bus.write(spec, [(0, None, x) for x in values])
        async with Target().running() as target:
            room: Any
            if kind in ("samples", "forecasts"):
                room, place = WindowRoom(bus), ("samples", "forecasts").index(kind)
                await end(room, lambda: room.position()[place] == 3)
                assert room.rejected(topic=kind) == 1
            else:
                room = InferenceRoom(bus) if kind == "due" else SinkRoom(bus, target)
                group = room.app.conf.id
                async with running(room.app), asyncio.timeout(20):
                    while (await bus.committed(group, spec.name))[0] != 3:  # noqa: ASYNC110 (nothing tells)
                        await asyncio.sleep(0.05)
                assert room.rejected() == 1
            if kind == "scores":
                assert [dict(x)["host"] for x, _, _ in target.taken] == ["h0", "h2"]
        (letter,) = await letters(bus)
        assert (letter.topic, letter.offset, letter.reason) == (spec.name, 1, "UnknownVersionError")
        assert letter.detail == f"{message.__name__} has version {ours + 1}, this release reads up to {ours}"
        assert letter.payload == values[1]
        assert letter.set_aside

    asyncio.run(go())


# -- changelogs ------------------------------------------------------------------------------------

RECORDS = {
    "column": (records.COLUMN, changelog.Column, 1),
    "patch": (records.PATCH, changelog.Patch, 1),
    "catalogue": (records.CATALOGUE, changelog.CataloguePage, 2),
    "hot": (records.HOT, changelog.StatePage, 2),
    "cold": (records.COLD, changelog.StatePage, 2),
}


async def worked(bus: Bus) -> None:
    """A worker of this release has been here, and has left a checkpoint."""
    spec = names(bus).samples
    await bus.write(spec, [(0, None, sample(step)) for step in range(5)])
    room = WindowRoom(bus)
    await end(room, lambda: room.position()[0] == 5)


async def write(bus: Bus, kind: int, rows: list[Row]) -> None:
    name = "ring" if kind in (records.COLUMN, records.PATCH) else "state"
    room = WindowRoom(bus)
    spec = next(s for topic, s in room.app.specs.items() if topic.endswith(f"-{name}-changelog"))
    await bus.write(spec, rows)


@pytest.mark.parametrize("what", RECORDS)
def test_a_window_worker_does_not_go_on_from_a_changelog_of_a_newer_release(
    embedded_bus: Bus, what: str
) -> None:
    """Not even if the record is of windows that nobody asks for now: their names may have changed."""

    async def go() -> None:
        bus = embedded_bus
        await worked(bus)
        kind, message, ours = RECORDS[what]
        record = newer(message(version=1).SerializeToString(), message, ours + 1)
        await write(bus, kind, [(0, records.key(kind, 4711, 0), record)])
        room = WindowRoom(bus)
        with pytest.raises(ConfigError) as caught:
            async with running(room.app) as watch:
                await asyncio.wait_for(watch, 30)
        said = str(caught.value)
        assert f"{message.__name__} has version {ours + 1}, this release reads up to {ours}" in said
        assert "changelog of partition 0, offset" in said
        assert "run the release that wrote it" in said
        # Nothing was written or committed: the newer release goes on as if we had not been here.
        assert (await bus.committed(room.app.conf.id, names(bus).samples.name))[0] == 5

    asyncio.run(go())


def test_the_same_on_kafka(kafka_bus: Bus) -> None:
    async def go() -> None:
        await worked(kafka_bus)
        kind, message, ours = RECORDS["hot"]
        record = newer(message(version=1).SerializeToString(), message, ours + 1)
        await write(kafka_bus, kind, [(0, records.key(kind, 4711, 0), record)])
        room = WindowRoom(kafka_bus)
        with pytest.raises(ConfigError, match="StatePage has version 3, this release reads up to 2"):
            async with running(room.app) as watch:
                await asyncio.wait_for(watch, 30)

    asyncio.run(go())


def test_a_kind_of_record_that_is_not_known_is_of_a_newer_release(embedded_bus: Bus) -> None:
    async def go() -> None:
        await worked(embedded_bus)
        await write(embedded_bus, 99, [(0, records.key(99, 4711, 0), b"\x08\x01")])
        with pytest.raises(ConfigError, match="a record of kind 99"):
            async with running(WindowRoom(embedded_bus).app) as watch:
                await asyncio.wait_for(watch, 30)

    asyncio.run(go())


def test_fields_that_a_newer_release_added_are_left_alone(embedded_bus: Bus) -> None:
    """The same version with more in it is read, in frames and in changelogs."""

    async def go() -> None:
        bus, spec = embedded_bus, names(embedded_bus).samples
        await bus.write(spec, [(0, None, newer(sample(i), pb.SampleFrame, 1)) for i in range(5)])
        room = WindowRoom(bus)
        await end(room, lambda: room.position()[0] == 5)
        written = await checkpoint(room, bus)
        await bus.write(spec, [(0, None, sample(5))])
        again = WindowRoom(bus)
        await end(again, lambda: again.position()[0] == 6)
        assert written
        assert again.rejected(topic="samples") == 0
        (block,) = again.worker.partitions[0].blocks.values()
        assert block.catalogue.live == 1

    asyncio.run(go())


async def checkpoint(room: WindowRoom, bus: Bus) -> int:
    """Write the last record of each key of the state changelog once more, with a field that nobody knows."""
    spec = next(s for topic, s in room.app.specs.items() if topic.endswith("-state-changelog"))
    async with bus._opened() as broker:
        found = (await broker.fetch({(spec.name, 0): 0}, 100, 1 << 20))[spec.name, 0]
    rows: list[Row] = [(0, r.key, (r.value or b"") + b"\xfa\x3e\x03new") for r in found]
    await bus.write(spec, rows)
    return len(rows)
