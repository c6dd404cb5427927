"""Workers on Faust's own classes, and on ours, that do the same to the records of a topic."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import faust

from integration.broker.buses import PARTITIONS, Bus, Row, value
from openanomaly.broker.faust_app import declare, make_app
from openanomaly.broker.ledger import Ledger
from openanomaly.broker.ring_store import changelog_table
from openanomaly.broker.topics import TopicSpec

Handle = Callable[[bytes], Awaitable[None]]
"""What is done to a record; it is finished when this returns."""
CRASHING = "mode.CrashingSupervisor"
_STOP_S = 5.0


def records(first: int, end: int) -> list[Row]:
    """All of one partition."""
    return [(0, None, value(i)) for i in range(first, end)]


class NoOwner:
    """A table that nobody looks into."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: None


class Ours:
    """Reads as the roles of the product do."""

    def __init__(self, bus: Bus, spec: TopicSpec, handle: Handle) -> None:
        self.app: Any = make_app("sink", bus.config)
        self._handle = handle
        self._ledger = Ledger(self.app, spec.name)
        self.app.agent(declare(self.app, spec), name=f"{spec.name}.worker")(self._read)
        changelog_table(self.app, "ring", PARTITIONS, NoOwner(), retention_s=3600.0)

    async def _read(self, stream: Any) -> None:
        async for event in stream.noack().events():
            if self._ledger.receive(event):
                await self._handle(event.message.value)
                self._ledger.done(event.message.partition, event.message.offset)


class PlainApp(faust.App):
    """Faust's app, with what `running` asks of one."""

    role = "plain"
    is_up = False
    committed_at_error = 0
    """When an agent raises Faust commits before anything else. It is a race how much is acknowledged by
    then: here so much, of one partition."""

    async def _on_agent_error(self, agent: Any, exc: BaseException) -> None:
        async with asyncio.timeout(20):
            await super()._on_agent_error(agent, exc)
            while (
                max((o or 0 for o in self.consumer._committed_offset.values()), default=0)
                < self.committed_at_error
            ):
                await asyncio.sleep(0.01)
                await super()._on_agent_error(agent, exc)

    async def ensure_topics(self) -> None:
        """They are there."""

    def _create_directories(self) -> None:
        """None in the working folder."""

    async def stop(self) -> None:
        producer, thread = self.producer._producer, self.consumer._thread
        # After a crash Faust's stop may wait for its thread, which has ended, or is cancelled with it.
        stop = asyncio.create_task(super().stop())
        await asyncio.wait({stop}, timeout=_STOP_S if self.crashed else None)
        stop.cancel()
        if thread._thread is None:
            thread.thread_loop.close()
        else:
            with contextlib.suppress(RuntimeError):  # its loop is closed
                thread._stopped_set()
            await asyncio.to_thread(thread._thread.join, _STOP_S)
        if producer is not None:
            await producer.stop()

    async def close_transports(self) -> None:
        """`stop` has."""


class Plain:
    """Faust's app, driver, consumer and recovery, read as its documentation shows it first.

    Args:
        has_table: needed where a test is about recovery. Elsewhere it costs records now and then (L1).
        committed_at_error: see `PlainApp`.
        settings: of Faust's app.
    """

    def __init__(
        self,
        bus: Bus,
        spec: TopicSpec,
        handle: Handle,
        has_table: bool = False,
        committed_at_error: int = 0,
        **settings: Any,
    ) -> None:
        self.app = PlainApp(
            f"{bus.config.topic_prefix}-plain",
            broker=bus.config.url.replace("kafka://", "aiokafka://"),  # `kafka` is the name of our driver
            store="memory://",
            autodiscover=False,
            web_enabled=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            topic_partitions=PARTITIONS,
            consumer_auto_offset_reset="earliest",
            broker_session_timeout=bus.config.session_timeout_s,
            broker_heartbeat_interval=bus.config.session_timeout_s / 5,
            key_serializer="raw",
            value_serializer="raw",
            **settings,
        )
        self.app.committed_at_error = committed_at_error
        self._handle = handle
        topic = self.app.topic(spec.name, key_type=bytes, value_type=bytes)
        self.app.agent(topic, name=f"{spec.name}.worker")(self._read)
        if has_table:
            self.app.Table("ring", key_type=bytes, value_type=bytes, partitions=PARTITIONS)

    async def _read(self, stream: Any) -> None:
        async for event in stream.events():
            await self._handle(event.message.value)


class PlainBatches(Plain):
    """Reads with `take`, which acknowledges batches."""

    async def _read(self, stream: Any) -> None:
        async for contents in stream.take(5, within=0.2):
            for content in contents:
                await self._handle(content)


class PlainHeldBatches(Plain):
    """Reads with `noack_take`, and acknowledges a batch that is finished."""

    async def _read(self, stream: Any) -> None:
        async for events in stream.noack_take(5, within=0.2):
            for event in events:
                await self._handle(event.message.value)
            for event in events:
                event.ack()


class PlainReader(Plain):
    """`Reader` on Faust's classes: holds every record until the test says it is done."""

    def __init__(self, bus: Bus, spec: TopicSpec, **settings: Any) -> None:
        self.read: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
        self._held: dict[tuple[int, int], Any] = {}
        super().__init__(bus, spec, self._no_handle, **settings)

    async def _no_handle(self, value: bytes) -> None:
        """What is done to a record comes later."""

    async def _read(self, stream: Any) -> None:
        async for event in stream.noack().events():
            message = event.message
            self._held[message.partition, message.offset] = event
            self.read[message.partition].append((message.offset, message.value))

    @property
    def count(self) -> int:
        return sum(map(len, self.read.values()))

    def done(self, partition: int, *offsets: int) -> None:
        for offset in offsets:
            self._held.pop((partition, offset)).ack()
