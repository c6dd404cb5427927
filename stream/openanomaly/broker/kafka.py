"""Faust transport on Kafka: `kafka://HOST:PORT[,HOST:PORT]`, in the place of Faust's own driver.

What differs from Faust's: offsets are committed by release only (delivery.py), the producer is
idempotent and outlasts outages (kafka_producer.py), topics are made before anything runs
(kafka_topics.py), and a coordinator, fetcher or sender that died crashes the app, where aiokafka would
wait for somebody to ask.
"""

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import aiokafka
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode import Service

from openanomaly.broker.delivery import ReleasedOffsets
from openanomaly.broker.kafka_client import CHECK_S, GONE, REQUEST_TIMEOUT_S, abort
from openanomaly.broker.kafka_producer import Producer
from openanomaly.broker.kafka_topics import ensure_topics
from openanomaly.broker.topics import TopicSpec
from openanomaly.errors import DeliveryError

T = TypeVar("T")

_FETCH_WAIT_S = 0.5
_FETCH_BYTES = 16 << 20
"""One answer of one node. A partition's share of it is the setting `consumer_max_fetch_size`."""
_STOP_S = 4.0


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """aiokafka's consumer in its own thread and loop, so that heartbeats do not wait for our work."""

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        conf = self.app.conf
        # Faust's assignor keeps changelogs with their sources; without tables the stock one does.
        tables = bool(self.app.tables.changelog_topics)
        self._assignor = self.app.assignor if tables else RoundRobinPartitionAssignor
        return aiokafka.AIOKafkaConsumer(
            client_id=conf.broker_client_id,
            group_id=conf.id,
            group_instance_id=conf.consumer_group_instance_id,
            bootstrap_servers=driver.server_list(transport.url, transport.default_port),
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset=conf.consumer_auto_offset_reset,
            max_poll_records=conf.broker_max_poll_records,
            max_poll_interval_ms=_ms(conf.broker_max_poll_interval),
            max_partition_fetch_bytes=conf.consumer_max_fetch_size,
            fetch_max_bytes=_FETCH_BYTES,
            fetch_max_wait_ms=_ms(_FETCH_WAIT_S),
            request_timeout_ms=_ms(max(REQUEST_TIMEOUT_S, conf.broker_session_timeout + 5)),
            check_crcs=conf.broker_check_crcs,
            session_timeout_ms=_ms(conf.broker_session_timeout),
            rebalance_timeout_ms=_ms(conf.broker_rebalance_timeout),
            heartbeat_interval_ms=_ms(conf.broker_heartbeat_interval),
            isolation_level="read_uncommitted",
            metadata_max_age_ms=conf.consumer_metadata_max_age_ms,
            connections_max_idle_ms=conf.consumer_connections_max_idle_ms,
            **driver.credentials_to_aiokafka_auth(conf.broker_credentials),
        )

    async def on_start(self) -> None:
        await super().on_start()
        if self.app.tables.changelog_topics:
            self._watch_membership()

    def _watch_membership(self) -> None:
        """Keep the lease. Who owns state and was replaced ends: what it holds is not the state any more."""
        coordinator, lease = self._ensure_consumer()._coordinator, self.app.lease
        heartbeat, join_complete = coordinator._do_heartbeat, coordinator._on_join_complete
        reset = coordinator.reset_generation

        async def do_heartbeat() -> bool:
            asked_s = time.monotonic()
            is_member: bool = await heartbeat()
            if is_member:
                lease.renew(asked_s)
            return is_member

        async def on_join_complete(*args: Any) -> None:
            lease.renew(time.monotonic())
            await join_complete(*args)

        def reset_generation() -> None:
            reset()
            lease.end()
            if not self.should_stop and not self.app.should_stop:
                coordinator._do_rejoin_group = stay_away
                self.app.loop.call_soon_threadsafe(self._crash_of, DeliveryError(GONE))

        async def stay_away(subscription: Any) -> bool:
            # Else we would be given partitions while we end, and leave them alone.
            await asyncio.wait([coordinator._closing])
            return False

        coordinator._do_heartbeat, coordinator._on_join_complete = do_heartbeat, on_join_complete
        coordinator.reset_generation = reset_generation

    def _crash_of(self, error: Exception) -> None:
        if not self.app.crashed and not self.app.should_stop:
            self.app.add_future(self.app.crash(error))

    async def on_thread_stop(self) -> None:
        try:
            await asyncio.wait_for(super().on_thread_stop(), _STOP_S)
        except TimeoutError:
            self.log.warning("the consumer left its group without saying so: the broker does not answer")

    async def end(self) -> None:
        """Wait until the thread is gone, whoever told it to end.

        A thread that is up after its parent's loop was closed dies of that. `stop` does not wait for
        one whose app crashed.
        """
        if not self._thread_started.is_set():
            self.thread_loop.close()
        elif self._thread is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it has ended since
                self._stopped_set()
            await asyncio.to_thread(self._thread.join, 2 * _STOP_S)

    def _start_thread(self) -> None:
        """What the thread does: Faust's part of it, and an end at which nobody is left waiting."""
        try:
            super()._start_thread()
        finally:
            try:
                self.thread_loop.run_until_complete(self._close_rest())
            finally:
                self.thread_loop.close()

    async def _close_rest(self) -> None:
        """Cancel what was handed over while the thread ended, and close what a stop in haste left open."""
        await asyncio.sleep(0)  # what was handed over becomes tasks
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        if self._consumer is not None:
            self._consumer._closed = True  # as far as it goes: aiokafka need not warn of it
            await abort(self._consumer._client)

    async def run_there(self, work: Coroutine[Any, Any, T]) -> T:
        """Run in the thread's loop, past its queue: that may be waiting for the same broker.

        Raises:
            RuntimeError: the thread has ended.
        """
        try:
            done = asyncio.run_coroutine_threadsafe(work, self.thread_loop)
        except RuntimeError:
            work.close()
            raise
        return await asyncio.wrap_future(done)

    async def _fetch_records(
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> Mapping[TopicPartition, Any]:
        """Records of `active_partitions`; those of what was paused meanwhile are unread again.

        Without an await between a fetch and its undoing: no seek can come in between.
        """
        records: dict[TopicPartition, Any] = await super()._fetch_records(
            consumer, active_partitions, timeout=timeout, max_records=max_records
        )
        for tp in [tp for tp in records if tp in self.consumer._paused_partitions]:
            consumer.seek(tp, records.pop(tp)[0].offset)
        return records

    async def committed(self, tps: Iterable[TP]) -> dict[TP, int | None]:
        wanted = [TopicPartition(tp.topic, tp.partition) for tp in tps]
        coordinator = self._ensure_consumer()._coordinator
        found = await self.run_there(coordinator.fetch_committed_offsets(wanted))
        # -1 is how the protocol says "none".
        offsets = {TP(tp.topic, tp.partition): known.offset for tp, known in found.items()}
        return {TP(*tp): offset if (offset := offsets.get(TP(*tp), -1)) >= 0 else None for tp in wanted}

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        consumer = self._ensure_consumer()
        assigned = self.assignment()
        ours = {
            TopicPartition(tp.topic, tp.partition): OffsetAndMetadata(offset, "")
            for tp, offset in offsets.items()
            if tp in assigned
        }
        try:
            await consumer.commit(ours)
        except (CommitFailedError, IllegalStateError) as exc:
            # A rebalance came first: its new owner, maybe we, reads these records again.
            self.log.info("offsets were not committed: %s", exc)
            return False
        except KafkaError as exc:
            if not exc.retriable:
                await self.crash(exc)
            self.log.warning("offsets were not committed: %s", exc)
            return False
        return True

    async def check_errors(self) -> None:
        """In the thread's loop.

        Raises:
            Exception: why the coordinator or the fetcher cannot go on.
        """
        consumer = self._ensure_consumer()
        coordinator, fetcher = consumer._coordinator, consumer._fetcher
        if consumer._closed or coordinator is None or fetcher is None:
            return
        coordinator.check_errors()
        if fetcher.error_future.done():
            fetcher.error_future.result()
        # We read nothing while every buffer is full, however long the target of a sink is down:
        # that we are alive is for the watchdog to judge, not for the group.
        with consumer._subscription.fetch_context():
            pass


class Consumer(ReleasedOffsets, driver.Consumer):
    """Reads Kafka for one app; its group is the app's id."""

    _thread: ConsumerThread

    def _new_consumer_thread(self) -> ConsumerThread:
        # A loop that Faust does not close: the thread does, see `_start_thread`.
        mine = asyncio.new_event_loop()
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon, thread_loop=mine)

    async def committed_offsets(self, tps: Iterable[TP]) -> dict[TP, int | None]:
        return await self._thread.committed(tps)

    @Service.task
    async def _check(self) -> None:
        """aiokafka keeps fatal errors until somebody asks; Faust never does."""
        while not self.should_stop:
            await self.sleep(CHECK_S)
            if self.should_stop:
                return
            try:
                await self._thread.run_there(self._thread.check_errors())
            except Exception as exc:
                if not self.should_stop:
                    self.log.error("the consumer cannot go on: %r", exc)
                    await self.app.crash(exc)
                return


class Transport(driver.Transport):
    """Kafka as we use it; clients end with the app."""

    Consumer: ClassVar[Any] = Consumer
    Producer: ClassVar[Any] = Producer

    async def ensure(self, specs: Sequence[TopicSpec]) -> None:
        """Make the topics exist as specified.

        Raises:
            ConfigError: one exists with another number of partitions or another cleanup policy, or
                the broker refuses who we are.
            BusUnavailableError: the broker cannot be reached.
        """
        conf = self.app.conf
        await ensure_topics(
            driver.server_list(self.url, self.default_port),
            dict(driver.credentials_to_aiokafka_auth(conf.broker_credentials)),
            specs,
            conf.topic_replication_factor,
        )

    async def close(self) -> None:
        """Let go of the consumer's thread and of its loop, also where it never started or crashed."""
        consumer = self.app._consumer
        if consumer is not None:
            await consumer._thread.end()


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
