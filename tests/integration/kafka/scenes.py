"""A small product on Kafka under load, and faults that happen to it."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from random import Random
from typing import Any

from chaos import campaign
from chaos.faults import Fault, Scene
from chaos.room import EVERY, WARMUP, Result, Room
from parts.kafka import Cluster

PACE_S = 0.2
SERIES = 400
ROLES = ("receiver-1", "window-1", "window-2", "inference-1", "sink-1")
Check = Callable[[Scene], Coroutine[Any, Any, None]]


def scene(
    root: Path,
    cluster: Cluster,
    prefix: str,
    members: tuple[str, ...] = ROLES,
    broker: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Scene:
    settings = {"partitions": 4, "topic_prefix": prefix, "session_timeout_s": 6, **(broker or {})}
    room = Room(root, cluster.url, settings, list(members), SERIES, steps=3000, **changes)
    return Scene(room, Random(1), cluster, prefix, shortest_s=2, longest_s=3, absent_s=8)


async def survive(scene: Scene, faults: Mapping[str, Fault], check: Check | None = None) -> Result:
    """Have each fault happen once; every step that was acknowledged must be scored, and rightly."""
    room = scene.room
    async with room.running():
        await room.push(WARMUP + EVERY, PACE_S)
        done = await campaign.each(scene, faults.items(), PACE_S)
        result = await room.finish()
        if check is not None:
            await check(scene)
    assert done.not_recovered == []
    assert result.is_good, result.complaints()
    assert result.findings.compared == SERIES * (result.steps - 1 - WARMUP)
    assert result.acknowledged == SERIES * result.steps
    return result


def outcome(scene: Scene, faults: Mapping[str, Fault], check: Check | None = None) -> Result:
    return asyncio.run(survive(scene, faults, check))
