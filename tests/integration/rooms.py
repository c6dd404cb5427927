"""Rooms on an embedded broker of their own, and a client beside them that writes and reads records."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from openanomaly.broker.faust_app import App, BrokerConfig, Role, Row, declare, make_app, publish
from openanomaly.broker.runner import Runner
from openanomaly.broker.topics import Topics, TopicSpec, topics

PARTITIONS = 2


def embedded(folder: Path) -> BrokerConfig:
    return BrokerConfig(f"embedded://{folder}", partitions=PARTITIONS, session_timeout_s=5)


class Bench:
    """One broker, the topics of the product, and the apps that a test puts on it."""

    def __init__(self, folder: Path) -> None:
        self.config = embedded(folder)
        self.topics: Topics = topics(self.config.topic_prefix, PARTITIONS)
        self.client = make_app("ingest", self.config)
        for spec in (self.topics.due, self.topics.scores):
            declare(self.client, spec)

    def app(self, role: Role) -> App:
        return make_app(role, self.config)

    @contextlib.asynccontextmanager
    async def running(self, *apps: App, stop: Sequence[Callable[[], Any]] = ()) -> AsyncIterator[None]:
        """The client and `apps`, from their start to a graceful end: `stop` first, then the apps."""
        runner = Runner([self.client, *apps])
        await runner.ensure_topics()
        runner.start()
        ended = asyncio.Event()
        watch = asyncio.create_task(runner.wait(ended))
        try:
            yield
            for finish in stop:
                await finish()
            await runner.commit()
        finally:
            ended.set()
            crash = (await asyncio.gather(watch, return_exceptions=True))[0]
            await runner.stop()
        if isinstance(crash, BaseException):
            raise crash

    async def write(self, spec: TopicSpec, records: Sequence[Row]) -> list[int]:
        return await publish(self.client, spec.name, records)

    async def records(self, spec: TopicSpec) -> list[list[bytes]]:
        """All values that a topic holds, by partition."""
        found = await self._broker.fetch({(spec.name, p): 0 for p in range(spec.partitions)}, 10**6, 1 << 30)
        return [[r.value or b"" for r in found[spec.name, p]] for p in range(spec.partitions)]

    def committed(self, app: App, spec: TopicSpec) -> list[int]:
        """Through which offset each partition is committed by the group of `app`."""
        return [self._broker.committed(app.conf.id, (spec.name, p)) or 0 for p in range(spec.partitions)]

    @property
    def _broker(self) -> Any:
        return self.client.producer_transport.broker
