"""The producer on Kafka: idempotent, outlasts outages, writes nothing once others may have our place."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from aiokafka.errors import (
    InvalidProducerEpoch,
    KafkaError,
    KafkaTimeoutError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
    UnknownMemberIdError,
)
from faust.exceptions import ProducerSendError
from faust.transport.drivers import aiokafka as driver
from mode import Service

from openanomaly.broker.kafka_client import CHECK_S, CLOSE_S, GONE, REQUEST_TIMEOUT_S, abort

_STOP_S = 1.0
_LEASE_CHECK_S = 0.05
_FATAL = (OutOfOrderSequenceNumber, InvalidProducerEpoch, ProducerFenced)
"""After these every later record of the producer fails too; a new process gets a new producer id."""


class Producer(driver.Producer):
    """Idempotent; a send waits as long as the broker is away, callers have their own limit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.request_timeout = REQUEST_TIMEOUT_S

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": True}

    async def send(self, *args: Any, **kwargs: Any) -> "asyncio.Future[Any]":
        """Give a record to the producer; waits while the partition's batch is full.

        Batches are bounded (`producer_max_batch_size` per partition), so memory is too.
        """
        while True:
            try:
                future: asyncio.Future[Any] = await super().send(*args, **kwargs)
            except ProducerSendError as exc:
                if isinstance(exc.__cause__, KafkaTimeoutError):
                    continue  # the batch is still full: the record was not taken
                if isinstance(exc.__cause__, KafkaError):
                    raise exc.__cause__ from None
                raise
            future.add_done_callback(self._look_for_fatal)
            return future

    async def on_start(self) -> None:
        await super().on_start()
        self._hold_without_lease()

    def _hold_without_lease(self) -> None:
        """Let no batch out while others may have taken our place. As late as can be: not before a batch
        is made, but before it is sent, since a process may stand still in between."""
        producer = self._producer
        assert producer is not None
        lease, sender = self.app.lease, producer._sender
        send = sender._send_produce_req

        async def send_with_lease(node_id: int, batches: Any) -> None:
            while not lease.is_valid and not lease.is_over:  # noqa: ASYNC110 (the other thread cannot tell)
                await asyncio.sleep(_LEASE_CHECK_S)
            if lease.is_valid:
                await send(node_id, batches)
                return
            for batch in batches.values():
                batch.failure(UnknownMemberIdError(GONE))
            sender._in_flight.remove(node_id)
            sender._muted_partitions.difference_update(batches)

        sender._send_produce_req = send_with_lease

    def _look_for_fatal(self, future: "asyncio.Future[Any]") -> None:
        error = None if future.cancelled() else future.exception()
        if isinstance(error, _FATAL) and not self.app.crashed:
            self.add_future(self.app.crash(error))

    @Service.task
    async def _check(self) -> None:
        """A sender that died takes no record any more, and nobody would hear."""
        while not self.should_stop:
            await self.sleep(CHECK_S)
            producer = self._producer
            task = producer._sender.sender_task if producer is not None else None
            if task is not None and task.done() and not task.cancelled() and not self.should_stop:
                await self.app.crash(task.exception() or RuntimeError("the Kafka producer ended"))
                return

    async def on_stop(self) -> None:
        # A broker that is away would hold us for ever. What was not confirmed was not promised either:
        # it is read, or sent by its sender, again. The app has waited for that.
        producer = self._producer
        try:
            await asyncio.wait_for(super().on_stop(), _STOP_S)
        except TimeoutError:
            self.log.warning("records that the broker did not confirm are given up")
            if producer is not None:
                # The sender would wait for the answers to what is under way.
                with contextlib.suppress(Exception):
                    await asyncio.wait_for(producer._sender.close(), CLOSE_S)
                await abort(producer.client)

    def supports_headers(self) -> bool:
        return False
