"""The embedded broker in tests: open for a block, read whole partitions."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from openanomaly.broker.embedded.broker import Broker
from openanomaly.broker.embedded.rows import Stored
from openanomaly.broker.topics import TopicSpec

PLAIN = TopicSpec("plain", 2, 3600.0)
KEPT = TopicSpec("kept", 1, None, drop_consumed=False)
COMPACT = TopicSpec("compact", 1, None, compact=True, drop_consumed=False)
EDGE = TopicSpec("edge", 1, 3600.0, is_edge=True)


@contextlib.asynccontextmanager
async def opened(folder: Path, *specs: TopicSpec, **options: Any) -> AsyncIterator[Broker]:
    """The broker of `folder` with these topics, closed at the end."""
    broker = Broker.open(folder, **options)
    try:
        for spec in specs or (PLAIN, KEPT, COMPACT, EDGE):
            await broker.create(spec)
        yield broker
    finally:
        await broker.release()


async def everything(broker: Broker, topic: str, partition: int = 0, start: int = 0) -> list[Stored]:
    """Every record of a partition from `start` on, fetched in several pieces."""
    out: list[Stored] = []
    while True:
        found = (await broker.fetch({(topic, partition): start}, 7, 100_000))[topic, partition]
        if not found:
            return out
        out += found
        start = found[-1].offset + 1
