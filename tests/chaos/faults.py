"""What can go wrong: each fault is a function of a scene that returns when it is over.

Recovery is measured from there. A process that was killed is started again by its supervisor, as in
production; nobody does anything else.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from confluent_kafka import Producer

from chaos.room import HORIZON, Room
from chaos.stage import Member
from chaos.target import Behaviour
from parts.kafka import Cluster

TOPICS = ("samples", "due", "forecasts", "scores", "dead-letter")
POISON = (b"", b"\x00", b"poison", b"\x08\x63" + bytes(64))
"""Nothing, noise, noise, and a frame of version 99."""


@dataclass
class Scene:
    """Where faults happen.

    Attributes:
        cluster: the brokers, if they are processes of their own.
        disk: the folder of a small file system that the embedded broker is on.
        shortest_s, longest_s: how long an outage lasts.
        absent_s: how long a process stands still at most; others take its place before.
    """

    room: Room
    random: Random
    cluster: Cluster | None = None
    topic_prefix: str = "openanomaly"
    disk: Path | None = None
    shortest_s: float = 1.0
    longest_s: float = 10.0
    absent_s: float = 12.0

    async def a_while(self, longest_s: float | None = None) -> None:
        await asyncio.sleep(self.random.uniform(self.shortest_s, longest_s or self.longest_s))

    async def one(self, role: str) -> Member:
        """A process of this role that runs; the fault before may have ended it a moment ago."""

        def running() -> list[Member]:
            return [m for m in self.room.stage.of(role) if m.product.process.is_running]

        await self.room.until(running, f"a running {role}")
        return self.random.choice(running())


Fault = Callable[[Scene], Awaitable[None]]


# -- processes -----------------------------------------------------------------------------------


def kill(role: str) -> Fault:
    """kill -9 of a process of this role, and of what it started."""

    async def fault(scene: Scene) -> None:
        scene.room.stage.kill(await scene.one(role))

    return fault


async def kill_worker(scene: Scene) -> None:
    """kill -9 of the worker of `openanomaly run`, which starts another one."""
    scene.room.stage.kill_worker(await scene.one("run"))


async def kill_all(scene: Scene) -> None:
    """kill -9 of every process of the product at once."""
    for member in scene.room.stage.members.values():
        if member.is_wanted:
            scene.room.stage.kill(member)


def restart(role: str) -> Fault:
    """A rolling restart: one after another ends gracefully and starts again."""

    async def fault(scene: Scene) -> None:
        stage = scene.room.stage
        for member in stage.of(role):
            await stage.stop(member)
            stage.start(member)
            await stage.wait_until_ready(member)

    return fault


def pause(role: str) -> Fault:
    """A process stands still: a slow consumer, or one that others think dead, and that comes back."""

    async def fault(scene: Scene) -> None:
        member = await scene.one(role)
        scene.room.stage.pause(member)
        try:
            await scene.a_while(scene.absent_s)
        finally:
            scene.room.stage.resume(member)

    return fault


async def scale(scene: Scene) -> None:
    """One more window worker for a while; it ends gracefully or by kill -9."""
    stage = scene.room.stage
    name = f"window-{len(stage.members) + 1}"
    member = stage.add(name)
    await stage.wait_until_ready(member)
    await scene.a_while()
    if scene.random.random() < 0.5:
        await stage.stop(member)
    else:
        member.is_wanted = False
        stage.kill(member)


async def inference_away(scene: Scene) -> None:
    """No forecasts for longer than a horizon."""
    room = scene.room
    members = room.stage.of("inference")
    for member in members:
        await room.stage.stop(member)
    until = room.sender.released + HORIZON + 4
    await room.until(lambda: room.target.complete >= min(until, room.steps - 2), "scores", 600)
    for member in members:
        room.stage.start(member)
        await room.stage.wait_until_ready(member)


def clock(jump_s: float) -> Fault:
    """The wall clock of every process jumps, and some seconds later back again."""

    async def fault(scene: Scene) -> None:
        assert scene.room.clock is not None, "this fault needs a clock that can be moved"
        scene.room.clock.move(jump_s)
        try:
            await scene.a_while()
        finally:
            scene.room.clock.move(0)

    return fault


# -- the target ----------------------------------------------------------------------------------


def target(behaviour: Behaviour) -> Fault:
    """The target does not take scores for a while."""

    async def fault(scene: Scene) -> None:
        await scene.room.target.behave(behaviour)
        try:
            await scene.a_while()
        finally:
            await scene.room.target.behave("take")

    return fault


# -- the broker ----------------------------------------------------------------------------------


def _cluster(scene: Scene) -> Cluster:
    assert scene.cluster is not None, "this fault needs Kafka"
    return scene.cluster


async def leader(scene: Scene) -> None:
    """kill -9 of the node that leads one of the partitions of samples, and its return."""
    cluster = _cluster(scene)
    topic = f"{scene.topic_prefix}.samples"
    found = await asyncio.to_thread(lambda: cluster.admin().list_topics(topic, timeout=10))
    partitions = found.topics[topic].partitions
    node = partitions[scene.random.choice(sorted(partitions))].leader
    cluster.kill(node)
    await scene.a_while()
    await asyncio.to_thread(cluster.start, node)


async def brokers_away(scene: Scene) -> None:
    """kill -9 of every node, and their return."""
    cluster = _cluster(scene)
    cluster.stop()
    await scene.a_while()
    await asyncio.to_thread(cluster.start)


def poison(values: Sequence[bytes]) -> Fault:
    """Records that nobody can read in every topic."""

    async def fault(scene: Scene) -> None:
        producer = Producer({"bootstrap.servers": _cluster(scene).bootstrap, "log_level": 0, "acks": "all"})
        for topic in TOPICS:
            for value in values:
                producer.produce(f"{scene.topic_prefix}.{topic}", value=value, partition=0)
        await asyncio.to_thread(producer.flush, 20)

    return fault


async def disk_full(scene: Scene) -> None:
    """No byte is free where the embedded broker writes."""
    assert scene.disk is not None, "this fault needs a file system of its own"
    filler = scene.disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 20))
        except OSError:
            pass
        try:
            while True:
                file.write(bytes(512))
        except OSError:
            pass
    try:
        await scene.a_while()
    finally:
        os.unlink(filler)


ON_KAFKA: dict[str, tuple[float, Fault]] = {
    "kill receiver": (2, kill("receiver")),
    "kill window": (4, kill("window")),
    "kill inference": (2, kill("inference")),
    "kill sink": (2, kill("sink")),
    "kill all": (1, kill_all),
    "restart receiver": (1, restart("receiver")),
    "restart window": (1, restart("window")),
    "restart inference": (1, restart("inference")),
    "restart sink": (1, restart("sink")),
    "pause receiver": (1, pause("receiver")),
    "pause window": (2, pause("window")),
    "pause inference": (1, pause("inference")),
    "pause sink": (1, pause("sink")),
    "scale windows": (2, scale),
    "inference away": (0.5, inference_away),
    "target error": (1, target("error")),
    "target hang": (1, target("hang")),
    "target refuse": (1, target("refuse")),
    "leader": (3, leader),
    "brokers away": (1.5, brokers_away),
    "poison": (1, poison(POISON)),
    "clock ahead": (0.5, clock(600)),
    "clock back": (0.5, clock(-600)),
}
"""By name: how often it is chosen, and what happens."""

ON_EMBEDDED: dict[str, tuple[float, Fault]] = {
    "kill worker": (3, kill_worker),
    "kill all": (3, kill_all),
    "restart": (1, restart("run")),
    "pause": (1, pause("run")),
    "target error": (1, target("error")),
    "target hang": (1, target("hang")),
    "target refuse": (1, target("refuse")),
    "disk full": (1, disk_full),
    "clock ahead": (0.5, clock(600)),
    "clock back": (0.5, clock(-600)),
}
