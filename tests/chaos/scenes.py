"""A small product under load, and faults that happen to it, each once."""

import asyncio
from collections.abc import Mapping
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


def on_kafka(
    root: Path,
    cluster: Cluster,
    prefix: str,
    members: tuple[str, ...] = ROLES,
    broker: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Scene:
    """Roles as processes of their own."""
    settings = {"partitions": 4, "topic_prefix": prefix, "session_timeout_s": 6, **(broker or {})}
    return _scene(Room(root, cluster.url, settings, list(members), SERIES, 3000, **changes), cluster, prefix)


def embedded(root: Path, folder: Path, **changes: Any) -> Scene:
    """`openanomaly run`, with the broker's files in `folder`."""
    url = f"embedded://{folder}/broker"
    return _scene(Room(root, url, {"partitions": 4}, ["run-1"], SERIES, 3000, **changes))


def _scene(room: Room, cluster: Cluster | None = None, prefix: str = "openanomaly") -> Scene:
    return Scene(room, Random(1), cluster, prefix, shortest_s=2, longest_s=3, absent_s=8)


async def _survive(scene: Scene, faults: Mapping[str, Fault]) -> Result:
    room = scene.room
    async with room.running():
        await room.push(WARMUP + EVERY, PACE_S)
        done = await campaign.each(scene, faults.items(), PACE_S)
        result = await room.finish()
    assert done.not_recovered == []
    return result


def outcome(scene: Scene, faults: Mapping[str, Fault]) -> Result:
    """Have each fault happen; every step that was acknowledged must be scored, and rightly."""
    result = asyncio.run(_survive(scene, faults))
    assert result.is_good, result.complaints()
    assert result.findings.compared == SERIES * (result.steps - 1 - WARMUP)
    assert result.acknowledged == SERIES * result.steps
    return result
