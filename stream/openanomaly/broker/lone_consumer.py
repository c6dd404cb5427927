"""A Kafka consumer without a group: it is assigned partitions, commits nothing, and disturbs nobody."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, cast

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth, server_list

if TYPE_CHECKING:
    from openanomaly.broker.faust_app import App

log = logging.getLogger(__name__)

_FETCH_BYTES = 8 << 20
_STOP_S = 10.0


@contextlib.asynccontextmanager
async def lone_consumer(
    app: "App", partitions: Sequence[TopicPartition], timeout_s: float, fetch_bytes: int = _FETCH_BYTES
) -> AsyncIterator[Any]:
    """A started consumer of `partitions`, for the app's broker.

    Raises:
        KafkaError, TimeoutError: the broker does not answer.
    """
    transport = cast("Any", app.producer_transport)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=server_list(transport.url, transport.default_port),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=fetch_bytes,
        **credentials_to_aiokafka_auth(app.conf.broker_credentials),
    )
    try:
        async with asyncio.timeout(timeout_s):
            await consumer.start()
            consumer.assign(partitions)
        yield consumer
    finally:
        # A stop with fetches on their way raises the CancelledError that it made of them (aiokafka
        # 0.14, Fetcher.close), and leaves connections open: whoever awaits it ends as if cancelled.
        await _aside(consumer.stop())
        await _aside(consumer._client.close())


async def _aside(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end, whichever that is, or for as long as anybody waits for a dead broker."""
    task = asyncio.create_task(work)
    await asyncio.wait({task}, timeout=_STOP_S)
    if not task.done():
        task.cancel()
    elif not task.cancelled() and (error := task.exception()) is not None:
        log.debug("a consumer did not stop cleanly: %r", error)
